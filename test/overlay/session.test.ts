/** Sessions on a real disk: locks, kill -9, a full file system, damage, listing and discarding. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { BLOCK_SIZE, GIB, MIB } from "../../src/common/sizes.js";
import { ZeroDevice } from "../../src/device/zero-device.js";
import { OverlayDevice } from "../../src/overlay/overlay-device.js";
import {
  createSession,
  discardSession,
  openSession,
  type Session,
} from "../../src/overlay/session.js";
import { listSessions } from "../../src/overlay/session-list.js";
import { Scratch, until } from "../support/scratch.js";
import { CrashDisk, folderOn, newFolder } from "./crash-disk.js";

let scratch: Scratch;
beforeEach(() => {
  scratch = new Scratch();
});
afterEach(() => scratch.clean());

const CHILD = new URL("./session-child.mjs", import.meta.url).pathname;
const ROUNDS_AREA = 2 * MIB;

function make(kind: "rw" | "scratch" = "rw"): Promise<Session> {
  return createSession(scratch.path, { kind, volumeSizeGiB: 1, mountPoint: "/mnt/x" });
}

function child(...args: string[]): ChildProcess {
  const process_ = spawn(process.execPath, [CHILD, ...args], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  scratch.undo(() => process_.kill("SIGKILL"));
  return process_;
}

async function ended(process_: ChildProcess): Promise<void> {
  if (process_.exitCode !== null || process_.signalCode !== null) return;
  await new Promise((resolve) => process_.once("exit", resolve));
}

test("a session folder is for its user alone, and its record survives", async () => {
  const session = await make();
  const { id, path } = session;
  expect(fs.statSync(path).mode & 0o777).toBe(0o700);
  const device = await OverlayDevice.open(session, new ZeroDevice(GIB));
  await device.write(0, Buffer.alloc(10, 1));
  await device.close();
  for (const name of fs.readdirSync(path)) {
    expect([name, fs.statSync(join(path, name)).mode & 0o777]).toEqual([name, 0o600]);
  }
  await Promise.all([
    session.update({ state: "committing" }),
    session.update({ mountPoint: "/y" }),
  ]);
  await session.close();
  const again = await openSession(scratch.path, id);
  expect(again.record).toMatchObject({ state: "committing", mountPoint: "/y", volumeSizeGiB: 1 });
  await again.close();
});

test("a session of an older schema is used, and is from then on refused by what made it", async () => {
  const session = await make();
  const { id } = session;
  await session.update({ schema: 1 });
  await session.close();
  expect(listSessions(scratch.path)[0]).toMatchObject({ id, record: { schema: 1 } });
  await (await openSession(scratch.path, id)).close();
  expect(listSessions(scratch.path)[0]).toMatchObject({ id, record: { schema: 2 } });
  const newer = await openSession(scratch.path, id);
  await newer.update({ schema: 3 });
  await newer.close();
  await expect(openSession(scratch.path, id)).rejects.toMatchObject({
    errno: "EINVAL",
    message: expect.stringMatching(/another version .*schema 3/),
  });
});

test("lists sessions with what is in them, and discards them", async () => {
  expect(listSessions(scratch.path)).toEqual([]);
  const session = await make();
  const device = await OverlayDevice.open(session, new ZeroDevice(GIB));
  await device.write(0, Buffer.alloc(BLOCK_SIZE, 1));
  await device.flush();
  const [listed] = listSessions(scratch.path);
  expect(listed).toMatchObject({ id: session.id, inUse: true, dirtyBytes: BLOCK_SIZE });
  await expect(discardSession(scratch.path, session.id)).rejects.toMatchObject({ errno: "EBUSY" });
  await device.close();
  await session.close();
  expect(listSessions(scratch.path)[0]).toMatchObject({ inUse: false, dirtyBytes: BLOCK_SIZE });
  fs.writeFileSync(join(session.path, "session.json"), "{");
  expect(listSessions(scratch.path)[0]?.problem).toContain("damaged");
  await discardSession(scratch.path, session.id);
  expect(listSessions(scratch.path)).toEqual([]);
  const gone = openSession(scratch.path, session.id);
  await expect(gone).rejects.toMatchObject({ errno: "ENOENT" });
  await expect(openSession(scratch.path, "../x")).rejects.toMatchObject({ errno: "EINVAL" });
});

test("a session is used by one process, and is free when that is killed", async () => {
  const session = await make();
  await session.close();
  const holder = child("hold", scratch.path, session.id);
  await new Promise((resolve) => holder.stdout!.once("data", resolve));
  const second = openSession(scratch.path, session.id);
  await expect(second).rejects.toMatchObject({ errno: "EBUSY" });
  holder.kill("SIGKILL");
  await ended(holder);
  await (await openSession(scratch.path, session.id)).close();
});

test("a session whose snapshot is being completed is not mounted again", async () => {
  const session = await make();
  const upload = { attempt: 1, clientToken: "t", completing: true };
  await session.update({ state: "committing", upload });
  await session.close();
  const mounting = openSession(scratch.path, session.id, true);
  await expect(mounting).rejects.toMatchObject({ errno: "EINVAL" });
  await (await openSession(scratch.path, session.id)).close();
});

test("what was flushed survives kill -9 at any moment", async () => {
  const session = await make();
  await session.close();
  let flushed = -1;
  for (let kill = 0; kill < 8; kill++) {
    const writer = child("write", scratch.path, session.id, String(flushed + 1));
    let output = "";
    writer.stdout!.on("data", (chunk) => (output += chunk));
    // After so many flushes, and then some instant of the next: each time another.
    await until("it flushed", () => output.split("\n").length > 3 + kill * 5);
    writer.kill("SIGKILL");
    await ended(writer);
    const told = output.split("\n").slice(0, -1).map(Number);
    flushed = told.at(-1)!;
    const again = await openSession(scratch.path, session.id);
    const device = await OverlayDevice.open(again, new ZeroDevice(GIB));
    const found = Buffer.alloc(ROUNDS_AREA);
    await device.read(0, found);
    // Round n fills page n with its number, and zeroes the page of round n - 3.
    for (let round = Math.max(0, flushed - 40); round <= flushed; round++) {
      const at = (round % (ROUNDS_AREA / 4096)) * 4096;
      const page = found.subarray(at, at + 4096);
      const wiped = round <= flushed - 3;
      const allowed = wiped
        ? [0]
        : round === flushed - 2
          ? [0, (round % 255) + 1]
          : [(round % 255) + 1];
      expect(allowed.some((byte) => page.every((b) => b === byte))).toBe(true);
    }
    await device.close();
    await again.close();
  }
});

describe("the log", () => {
  const SIZE = 2 * BLOCK_SIZE;

  async function written(): Promise<CrashDisk> {
    const disk = new CrashDisk();
    await newFolder(disk);
    const device = await OverlayDevice.open(folderOn(disk, SIZE), new ZeroDevice(SIZE));
    for (let n = 0; n < 3; n++) {
      await device.write(n * 4096, Buffer.alloc(4096, n + 1));
      await device.flush();
    }
    await device.close();
    return disk;
  }

  test("cuts a torn tail, and goes on after it", async () => {
    const disk = await written();
    disk.corrupt("journal", 512 * 3 + 50); // the third record
    const device = await OverlayDevice.open(folderOn(disk, SIZE), new ZeroDevice(SIZE));
    const bytes = Buffer.alloc(3 * 4096);
    await device.read(0, bytes);
    expect([bytes[0], bytes[4096], bytes[8192]]).toEqual([1, 2, 0]);
    await device.write(8192, Buffer.alloc(512, 9));
    await device.close();
    const again = await OverlayDevice.open(folderOn(disk, SIZE), new ZeroDevice(SIZE));
    await again.read(0, bytes);
    expect([bytes[0], bytes[4096], bytes[8192]]).toEqual([1, 2, 9]);
    await again.close();
  });

  test("refuses to open where a record is damaged that had been durable", async () => {
    for (const at of [512 * 2 + 50, 512 + 60, 10]) {
      const disk = await written();
      disk.corrupt("journal", at);
      const opening = OverlayDevice.open(folderOn(disk, SIZE), new ZeroDevice(SIZE));
      await expect(opening).rejects.toMatchObject({ errno: "EIO" });
    }
  });
});

test.runIf(process.getuid?.() === 0)(
  "a full file system is told, and the session stays sound",
  async () => {
    const place = scratch.file("small");
    fs.mkdirSync(place);
    const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=8m", "none", place]);
    expect(mounted.status, String(mounted.stderr)).toBe(0);
    scratch.undo(() => {
      spawnSync("umount", ["-l", place]);
    });
    const session = await createSession(place, { kind: "rw", volumeSizeGiB: 1 });
    const device = await OverlayDevice.open(session, new ZeroDevice(GIB));
    let pages = 0;
    let refusal: unknown;
    while (refusal === undefined) {
      try {
        await device.write(pages * 65_536, Buffer.alloc(65_536, (pages % 250) + 1));
        pages += 1;
      } catch (error) {
        refusal = error;
      }
    }
    expect(refusal).toMatchObject({ errno: "ENOSPC" });
    expect(pages).toBeGreaterThan(50);
    // Records still find room: rewriting, flushing, zeroing, the session's own record.
    await device.write(0, Buffer.alloc(65_536, 77));
    await device.flush();
    await session.update({ state: "committing" });
    await device.zero(65_536, 65_536);
    await device.flush();
    await device.close();
    await session.close();
    const again = await openSession(place, session.id);
    const reopened = await OverlayDevice.open(again, new ZeroDevice(GIB));
    const bytes = Buffer.alloc(65_536);
    for (let page = 0; page < pages; page++) {
      await reopened.read(page * 65_536, bytes);
      const byte = page === 0 ? 77 : page === 1 ? 0 : (page % 250) + 1;
      expect(bytes.every((b) => b === byte)).toBe(true);
    }
    await reopened.close();
    await again.close();
  },
);
