/**
 * Export for real: interrupted at any moment and gone on with, whoever has touched the unfinished file
 * meanwhile; into a block device; onto a disk that is too small; and what is left behind when it fails.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, openSync, readdirSync, rmSync, writeSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BLOCK_SIZE, GIB, MIB } from "../../src/common/sizes.js";
import { Rig } from "../support/rig.js";
import { CLI, must, run, until } from "../support/scratch.js";

let rig: Rig;
let image: string;
let snapshot: string;

beforeAll(async () => {
  rig = await Rig.start();
  image = await rig.image("disk.img", GIB, [0, 60 * MIB], [700 * MIB + 3, 20 * MIB]);
  snapshot = await rig.import(image);
});
afterAll(() => rig.clean());

const gets = () => rig.endpoint.stats().operations.GetSnapshotBlock.calls;

/** An export that has fetched some blocks, and is then ended by a signal. */
async function interrupted(target: string, signal: "SIGINT" | "SIGKILL"): Promise<void> {
  rig.endpoint.faults.add({ action: "latency", operations: ["GetSnapshotBlock"], ms: 50 });
  const before = gets();
  let child: ChildProcess | undefined;
  try {
    child = spawn(process.execPath, [CLI, "export", "--concurrency", "4", snapshot, target], {
      env: { ...process.env, ...rig.env },
      stdio: "ignore",
    });
    const ended = once(child, "exit");
    await until("blocks are fetched", () => gets() > before + 40);
    child.kill(signal);
    await ended;
  } finally {
    child?.kill("SIGKILL");
    rig.endpoint.faults.clear();
  }
}

describe.each(["SIGINT", "SIGKILL"] as const)("an export ended by %s", (signal) => {
  it("goes on with what is there, and fetches little twice", async () => {
    const target = rig.scratch.file(`${signal}.img`);
    await interrupted(target, signal);
    expect(existsSync(target)).toBe(false);
    rig.endpoint.resetStats();
    const { stderr } = await rig.run(["export", snapshot, target]);
    expect(stderr).toMatch(/Going on with .*\.partial/);
    await must("cmp", [image, target]);
    expect(gets()).toBeLessThan(161 - 20);
    expect(readdirSync(rig.scratch.path).filter((name) => name.startsWith(`${signal}.`))).toEqual([
      `${signal}.img`,
    ]);
  });

  it("believes nothing that was changed meanwhile", async () => {
    const target = rig.scratch.file(`${signal}-harmed.img`);
    await interrupted(target, signal);
    const fd = openSync(`${target}.partial`, "r+");
    writeSync(fd, "changed", 1000);
    writeSync(fd, "in a hole", 300 * MIB + 77);
    writeSync(fd, "behind the last block", GIB - 100);
    await rig.must(["export", snapshot, target]);
    await must("cmp", [image, target]);
    const { stdout } = await run("du", ["-m", target]);
    expect(Number.parseInt(stdout, 10)).toBeLessThan(90);
  });
});

it("starts over where the ledger is gone, and refuses what is not its own", async () => {
  const target = rig.scratch.file("ledger.img");
  await interrupted(target, "SIGINT");
  rmSync(`${target}.partial.digests`);
  await rig.must(["export", snapshot, target]);
  await must("cmp", [image, target]);

  const other = rig.scratch.file("other.img");
  await must("sh", ["-c", `echo mine > ${other}.partial`]);
  const refused = await rig.run(["export", snapshot, other]);
  expect(refused).toMatchObject({ status: 1, stderr: expect.stringMatching(/something else/) });
  await rig.must(["export", "--force", snapshot, other]);
  await must("cmp", [image, other]);
});

it("fills a block device, holes too, and says what a failure leaves there", async () => {
  const file = rig.scratch.file("device.img");
  await must("sh", ["-c", `head -c ${GIB} /dev/urandom > ${file}`]);
  const loop = (await must("losetup", ["-f", "--show", file])).trim();
  rig.scratch.undo(() => run("losetup", ["-d", loop]));
  await must("blockdev", ["--setro", loop]);
  const refused = await rig.run(["export", snapshot, loop]);
  expect(refused).toMatchObject({
    status: 1,
    stderr: expect.stringMatching(/Nothing was written/),
  });
  await must("blockdev", ["--setrw", loop]);
  await rig.must(["export", snapshot, loop]);
  await must("cmp", [image, loop]);
});

it("onto a full disk fails with a sentence, and goes on once there is room", async () => {
  const disk = rig.scratch.file("small");
  mkdirSync(disk);
  await must("mount", ["-t", "tmpfs", "-o", "size=40m", "tmpfs", disk]);
  rig.scratch.undo(() => run("umount", [disk]));
  const target = `${disk}/disk.img`;
  const full = await rig.run(["export", snapshot, target]);
  expect(full).toMatchObject({ status: 1, stderr: expect.stringMatching(/full; free some space/) });
  await must("mount", ["-o", "remount,size=200m", disk]);
  await rig.must(["export", snapshot, target]);
  await must("cmp", [image, target]);
});

it("leaves nothing behind where the snapshot cannot be listed", async () => {
  const target = rig.scratch.file("none.img");
  const { status } = await rig.run(["export", "snap-0123456789abcdef0", target]);
  expect(status).toBe(1);
  expect(readdirSync(rig.scratch.path).filter((name) => name.startsWith("none"))).toEqual([]);
});

it("streams to standard output", async () => {
  const { status } = await run(
    "sh",
    ["-c", `"$0" "$1" export ${snapshot} - | cmp - ${image}`, process.execPath, CLI],
    { env: rig.env },
  );
  expect(status).toBe(0);
});

it("an id that standard output does not take is told on standard error", async () => {
  const small = rig.scratch.file("one-block.img");
  await must("sh", ["-c", `head -c ${BLOCK_SIZE} /dev/urandom > ${small}`]);
  for (const [output, lost] of [
    [">/dev/full", "ENOSPC"],
    ["| true", "EPIPE"],
  ] as const) {
    const script = `{ "$0" "$1" import ${small}; echo "status $?" >&2; } ${output}`;
    const { stderr } = await run("bash", ["-c", script, process.execPath, CLI], {
      env: rig.env,
    });
    expect(stderr).toMatch(/status 1/);
    const id = /The image is snapshot (snap-[0-9a-f]+); .*\((\w+)\)/.exec(stderr);
    expect(id?.[2]).toBe(lost);
    const { snapshots } = rig.endpoint.stats();
    expect(snapshots.find(({ snapshotId }) => snapshotId === id?.[1])?.status).toBe("completed");
  }
});
