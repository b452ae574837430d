/** Overlay to snapshot: what is put, and that there is exactly one right snapshot whatever fails. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { BLOCK_SIZE, GIB } from "../../src/common/sizes.js";
import { BackgroundUpload } from "../../src/overlay/background-upload.js";
import { commit } from "../../src/overlay/committer.js";
import { OverlayDevice } from "../../src/overlay/overlay-device.js";
import { createSession, openSession, type Session } from "../../src/overlay/session.js";
import { Upload } from "../../src/overlay/upload.js";
import { ReadOnlyMemoryDevice } from "../support/memory-device.js";
import { Scratch, until } from "../support/scratch.js";
import { FakeEbs, type FakeSnapshot } from "./fake-ebs.js";

const BASE_BLOCKS = 6;
const BASE = BASE_BLOCKS * BLOCK_SIZE;
const PARENT = "snap-0000aaaa";

let scratch: Scratch;
let api: FakeEbs;
let base: ReadOnlyMemoryDevice;
beforeEach(() => {
  scratch = new Scratch();
  api = new FakeEbs();
  const bytes = Buffer.alloc(BASE, 0xba);
  // Block 2 and 3 are holes.
  bytes.fill(0, 2 * BLOCK_SIZE, 4 * BLOCK_SIZE);
  base = new ReadOnlyMemoryDevice(bytes);
});
afterEach(() => scratch.clean());

/** A session whose volume is larger than its base: what is behind it are zeros. */
async function begin(stateDir = scratch.path): Promise<Session> {
  const session = await createSession(stateDir, {
    kind: "rw",
    volumeSizeGiB: 1,
    parentSnapshotId: PARENT,
    commit: { description: "test", tags: [{ key: "a", value: "b" }], timeoutMinutes: 10 },
  });
  return session;
}

/** The volume as a model: its first blocks and its last. */
class Model {
  readonly #blocks = new Map<number, Buffer>();
  readonly #base: Buffer;

  constructor(bytes: Buffer) {
    this.#base = bytes;
  }

  block(index: number): Buffer {
    let block = this.#blocks.get(index);
    if (block === undefined) {
      block = Buffer.alloc(BLOCK_SIZE);
      block.set(this.#base.subarray(index * BLOCK_SIZE, (index + 1) * BLOCK_SIZE));
      this.#blocks.set(index, block);
    }
    return block;
  }

  fill(offset: number, length: number, byte: number): void {
    for (let at = offset; at < offset + length; ) {
      const index = Math.floor(at / BLOCK_SIZE);
      const end = Math.min(offset + length, (index + 1) * BLOCK_SIZE);
      this.block(index).fill(byte, at - index * BLOCK_SIZE, end - index * BLOCK_SIZE);
      at = end;
    }
  }

  /** Blocks at which the snapshot, over the base, does not show the volume. */
  differences(snapshot: FakeSnapshot): number[] {
    const wrong: number[] = [];
    for (let index = 0; index < BASE_BLOCKS; index++) this.block(index);
    for (const index of snapshot.blocks.keys()) this.block(index);
    const untouched = new Model(this.#base);
    for (const [index, block] of this.#blocks) {
      const shown = snapshot.blocks.get(index) ?? untouched.block(index);
      if (!shown.equals(block)) wrong.push(index);
    }
    return wrong;
  }
}

describe("commit", () => {
  test("puts what differs from the base and nothing else", async () => {
    const session = await begin();
    const device = await OverlayDevice.open(session, base);
    const model = new Model(base.bytes);
    const write = async (offset: number, length: number, byte: number) => {
      await device.write(offset, Buffer.alloc(length, byte));
      model.fill(offset, length, byte);
    };
    await write(10, 100, 7);
    await write(BLOCK_SIZE, BLOCK_SIZE, 0xba); // as it was
    await write(2 * BLOCK_SIZE, 4096, 0); // zeros over a hole
    await write(3 * BLOCK_SIZE + 512, 512, 1);
    await device.discard(4 * BLOCK_SIZE, BLOCK_SIZE);
    model.fill(4 * BLOCK_SIZE, BLOCK_SIZE, 0);
    await device.discard(100 * BLOCK_SIZE, GIB - 100 * BLOCK_SIZE);
    await write(GIB - 5, 5, 9);
    const progress: { blocksDone: number; blocksTotal: number; bytes: number }[] = [];
    const result = await commit(session, device, api, {
      concurrency: 4,
      onProgress: (now) => progress.push(now),
    });
    const [snapshot] = api.completed;
    expect(result.snapshotId).toBe(snapshot!.id);
    expect([...snapshot!.blocks.keys()].sort((a, b) => a - b)).toEqual([0, 3, 4, 2047]);
    expect(model.differences(snapshot!)).toEqual([]);
    expect(snapshot!.parent).toBe(PARENT);
    expect(api.puts).toBe(4);
    expect(api.mostPutting).toBeLessThanOrEqual(4);
    expect(progress.at(-1)).toEqual({ blocksDone: 6, blocksTotal: 6, bytes: 4 * BLOCK_SIZE });
    expect(session.record).toMatchObject({ state: "committed", resultSnapshotId: snapshot!.id });
    expect(await commit(session, device, api)).toEqual(result);
    await expect(device.write(0, Buffer.alloc(1))).rejects.toMatchObject({ errno: "EROFS" });
    await device.close();
    await session.close();
    expect(base.viewsHeld).toBe(0);
  });

  test("makes no snapshot where nothing was written, or nothing that differs", async () => {
    for (const written of [false, true]) {
      const session = await begin();
      const device = await OverlayDevice.open(session, base);
      if (written) await device.write(0, Buffer.alloc(4096, 0xba));
      expect(await commit(session, device, api)).toEqual({ snapshotId: undefined });
      expect(session.record.state).toBe("committed");
      expect(api.snapshots).toHaveLength(0);
      await device.close();
      await session.remove();
    }
  });

  test("completes a snapshot into which only reverted blocks were put", async () => {
    const session = await begin();
    const device = await OverlayDevice.open(session, base);
    const upload = await Upload.open(session, device, api);
    await device.write(0, Buffer.alloc(4096, 1));
    expect(await upload.settle(0)).toBe("put");
    await device.write(0, Buffer.alloc(4096, 0xba));
    expect(upload.isSettled(0)).toBe(false);
    await commit(session, device, api, { upload });
    expect(new Model(base.bytes).differences(api.completed[0]!)).toEqual([]);
    expect(api.completed[0]!.blocks.size).toBe(1);
    await device.close();
    await session.close();
  });

  test("does not call a put settled that a write overtook", async () => {
    const session = await begin();
    const device = await OverlayDevice.open(session, base);
    const upload = await Upload.open(session, device, api);
    await device.write(0, Buffer.alloc(4096, 1));
    api.beforePut = () => device.write(0, Buffer.alloc(4096, 2));
    await upload.settle(0);
    expect(upload.isSettled(0)).toBe(false);
    api.beforePut = () => {};
    await commit(session, device, api, { upload });
    const model = new Model(base.bytes);
    model.fill(0, 4096, 2);
    expect(model.differences(api.completed[0]!)).toEqual([]);
    await device.close();
    await session.close();
  });

  test("knows that a block went back to what was put before the last put", async () => {
    const session = await begin();
    const device = await OverlayDevice.open(session, base);
    const upload = await Upload.open(session, device, api);
    await device.write(0, Buffer.alloc(4096, 1));
    await upload.settle(0);
    await device.write(0, Buffer.alloc(4096, 2));
    api.fate = (operation) => (operation === "PutSnapshotBlock" ? "lost" : "done");
    await expect(upload.settle(0)).rejects.toMatchObject({ errno: "ETIMEDOUT" });
    api.fate = () => "done";
    await device.write(0, Buffer.alloc(4096, 1));
    await upload.close();
    await commit(session, device, api);
    const model = new Model(base.bytes);
    model.fill(0, 4096, 1);
    // Known, and not only noticed by the checksum at the end and made good by another attempt.
    expect(api.snapshots).toHaveLength(1);
    expect(api.completed).toHaveLength(1);
    expect(model.differences(api.completed[0]!)).toEqual([]);
    await device.close();
    await session.close();
  });

  test("begins anew where the pending snapshot died, and loses nothing", async () => {
    const session = await begin();
    const device = await OverlayDevice.open(session, base);
    const upload = await Upload.open(session, device, api);
    const model = new Model(base.bytes);
    for (let block = 0; block < 4; block++) {
      await device.write(block * BLOCK_SIZE, Buffer.alloc(4096, block + 1));
      model.fill(block * BLOCK_SIZE, 4096, block + 1);
      await upload.settle(block);
    }
    api.killPending();
    await device.write(5 * BLOCK_SIZE, Buffer.alloc(512, 9));
    model.fill(5 * BLOCK_SIZE, 512, 9);
    const { snapshotId } = await commit(session, device, api, { upload });
    expect(api.snapshots).toHaveLength(2);
    expect(snapshotId).toBe(api.snapshots[1]!.id);
    expect(model.differences(api.snapshots[1]!)).toEqual([]);
    expect(session.record.abandoned).toEqual([api.snapshots[0]!.id]);
    await device.close();
    await session.close();
  });

  test("begins anew where the pending snapshot died with nothing left to put", async () => {
    const session = await begin();
    const device = await OverlayDevice.open(session, base);
    const upload = await Upload.open(session, device, api);
    await device.write(0, Buffer.alloc(4096, 5));
    await upload.settle(0);
    api.killPending();
    await commit(session, device, api, { upload });
    const model = new Model(base.bytes);
    model.fill(0, 4096, 5);
    expect(api.completed).toHaveLength(1);
    expect(model.differences(api.completed[0]!)).toEqual([]);
    await device.close();
    await session.close();
  });

  test("waits for a slow completion whose answer was lost, and makes no other snapshot", async () => {
    const session = await begin();
    const device = await OverlayDevice.open(session, base);
    await device.write(0, Buffer.alloc(4096, 5));
    api.slowness = 8;
    api.fate = (operation) => (operation === "CompleteSnapshot" ? "lost" : "done");
    await expect(commit(session, device, api)).rejects.toMatchObject({ errno: "ETIMEDOUT" });
    api.fate = () => "done";
    await commit(session, device, api);
    expect(api.snapshots).toHaveLength(1);
    expect(api.completed).toHaveLength(1);
    await device.close();
    await session.close();
  });

  test("a completion that was taken, refused when asked again, makes no other snapshot", async () => {
    const session = await begin();
    const device = await OverlayDevice.open(session, base);
    await device.write(0, Buffer.alloc(4096, 5));
    api.slowness = 8;
    api.fate = (operation) => (operation === "CompleteSnapshot" ? "lost" : "done");
    await expect(commit(session, device, api)).rejects.toMatchObject({ errno: "ETIMEDOUT" });
    api.fate = () => "done";
    api.refusal = (operation) =>
      operation === "CompleteSnapshot" ? "ResourceNotFoundException" : undefined;
    await commit(session, device, api);
    expect(api.snapshots).toHaveLength(1);
    expect(api.completed).toHaveLength(1);
    await device.close();
    await session.close();
  });

  test.each(["ResourceNotFoundException", "ConflictException"])(
    "a completion that is refused with %s for good leaves one snapshot, and the session",
    async (exception) => {
      const session = await begin();
      const device = await OverlayDevice.open(session, base);
      await device.write(0, Buffer.alloc(4096, 5));
      api.refusal = (operation) => (operation === "CompleteSnapshot" ? exception : undefined);
      await expect(commit(session, device, api)).rejects.toMatchObject({ exception });
      expect(api.snapshots).toHaveLength(1);
      api.refusal = () => undefined;
      const { snapshotId } = await commit(session, device, api);
      expect(api.snapshots.map(({ id }) => id)).toEqual([snapshotId]);
      await device.close();
      await session.close();
    },
    20_000,
  );

  test("a service that forgets the client token is asked for the snapshot itself", async () => {
    const session = await begin();
    const device = await OverlayDevice.open(session, base);
    const model = new Model(base.bytes);
    await device.write(0, Buffer.alloc(4096, 5));
    model.fill(0, 4096, 5);
    const upload = await Upload.open(session, device, api);
    await upload.settle(0);
    api.forgetful = true;
    let refusals = 1;
    api.refusal = (operation) =>
      operation === "CompleteSnapshot" && refusals-- > 0 ? "ConflictException" : undefined;
    const { snapshotId } = await commit(session, device, api, { upload });
    // The one that it made when asked is known, and has nothing in it.
    expect(snapshotId).toBe(api.snapshots[0]!.id);
    expect(api.completed).toHaveLength(1);
    expect(model.differences(api.completed[0]!)).toEqual([]);
    expect(session.record.abandoned).toEqual(api.snapshots.slice(1).map(({ id }) => id));
    await device.close();
    await session.close();
  }, 20_000);

  test("is begun anew any number of times, as long as something can be put in between", async () => {
    const session = await begin();
    const device = await OverlayDevice.open(session, base);
    const upload = await Upload.open(session, device, api);
    const model = new Model(base.bytes);
    for (let round = 1; round <= 6; round += 1) {
      await device.write(0, Buffer.alloc(4096, round));
      model.fill(0, 4096, round);
      await upload.settle(0);
      api.killPending();
    }
    await commit(session, device, api, { upload });
    expect(model.differences(api.completed[0]!)).toEqual([]);
    expect(session.record.abandoned).toHaveLength(6);
    await device.close();
    await session.close();
  });

  test("not waited for, it is not over: the session stays, and the next commit sees the end", async () => {
    const session = await begin();
    const device = await OverlayDevice.open(session, base);
    await device.write(0, Buffer.alloc(4096, 5));
    api.slowness = 3;
    const taken = await commit(session, device, api, { wait: false });
    expect(taken).toEqual({ snapshotId: api.snapshots[0]!.id, isPending: true });
    expect(session.record.state).toBe("committing");
    expect(await commit(session, device, api)).toEqual({ snapshotId: taken.snapshotId });
    expect(session.record.state).toBe("committed");
    expect(api.snapshots).toHaveLength(1);
    await device.close();
    await session.close();
  });

  test("goes on where the log of what was put is damaged", async () => {
    const session = await begin();
    let device = await OverlayDevice.open(session, base);
    const model = new Model(base.bytes);
    const upload = await Upload.open(session, device, api);
    for (const block of [0, 1, 4]) {
      await device.write(block * BLOCK_SIZE, Buffer.alloc(4096, 5));
      model.fill(block * BLOCK_SIZE, 4096, 5);
      await upload.settle(block);
      await upload.attempt.log.sync();
    }
    // Put once, and the base's again: only the log knows that it has to be put back.
    await device.write(BLOCK_SIZE, Buffer.alloc(4096, 0xba));
    model.fill(BLOCK_SIZE, 4096, 0xba);
    await upload.close();
    await device.close();
    const log = join(session.path, "uploads-1");
    const bytes = readFileSync(log);
    bytes[512 + 60]! ^= 1;
    writeFileSync(log, bytes);
    device = await OverlayDevice.open(session, base);
    await commit(session, device, api);
    expect(api.completed).toHaveLength(1);
    expect(model.differences(api.completed[0]!)).toEqual([]);
    await device.close();
    await session.close();
  }, 20_000);

  test("makes exactly one right snapshot, whatever fails and wherever it is cut off", async () => {
    const step = fc.record({
      block: fc.constantFrom(0, 1, 2, 3, 4, 5, 7, 2047),
      start: fc.nat(3).map((n) => n * 700),
      length: fc.constantFrom(300, 512, 5000, BLOCK_SIZE - 3 * 700),
      byte: fc.constantFrom(0, 1, 2, 0xba),
      discard: fc.boolean(),
      upload: fc.boolean(),
      kill: fc.nat(12).map((n) => n === 0),
      reopen: fc.nat(4).map((n) => n === 0),
    });
    const input = fc.tuple(
      fc.array(step, { minLength: 1, maxLength: 12 }),
      fc.infiniteStream(fc.nat(19)),
      fc.nat(3),
    );
    await fc.assert(
      fc.asyncProperty(input, async ([steps, dice, slowness]) => {
        api = new FakeEbs();
        api.slowness = slowness;
        let faults = 25;
        const faulty = () => {
          const n = dice.next().value;
          if (faults === 0 || n > 4) return "done";
          faults -= 1;
          return n > 2 ? "failed" : "lost";
        };
        const model = new Model(base.bytes);
        let session = await begin();
        const { id } = session;
        let device = await OverlayDevice.open(session, base);
        let upload = await Upload.open(session, device, api, 4);
        const reopen = async () => {
          await upload.close();
          await device.close();
          await session.close();
          session = await openSession(scratch.path, id);
          device = await OverlayDevice.open(session, base);
          upload = await Upload.open(session, device, api, 4);
        };
        api.fate = faulty;
        for (const { block, start, length, byte, ...then } of steps) {
          const offset = block * BLOCK_SIZE + start;
          if (then.discard) await device.discard(offset, length);
          else await device.write(offset, Buffer.alloc(length, byte));
          model.fill(offset, length, then.discard ? 0 : byte);
          if (then.upload) await upload.settle(block).catch(() => {});
          if (then.kill) api.killPending();
          if (then.reopen) await reopen();
        }
        let result: { snapshotId: string | undefined } | undefined;
        for (let tries = 0; result === undefined; tries++) {
          expect(tries).toBeLessThan(60);
          try {
            result = await commit(session, device, api, { upload, concurrency: 4 });
          } catch (error) {
            expect(String(error)).toContain("timed out");
            await reopen();
          }
        }
        expect(api.completed.length).toBe(result.snapshotId === undefined ? 0 : 1);
        const [snapshot] = api.completed;
        const none: FakeSnapshot = { ...(api.snapshots[0] as FakeSnapshot), blocks: new Map() };
        expect(model.differences(snapshot ?? none)).toEqual([]);
        expect(snapshot?.id).toBe(result.snapshotId);
        await device.close();
        await session.remove();
      }),
      { numRuns: 40 },
    );
  });
});

describe("background upload", () => {
  test("puts quiet blocks, again where they change, and leaves nothing to the commit", async () => {
    const session = await begin();
    const device = await OverlayDevice.open(session, base);
    const upload = await Upload.open(session, device, api);
    const background = new BackgroundUpload(upload, { quietMs: 20, concurrency: 2 });
    await device.write(0, Buffer.alloc(4096, 1));
    await device.write(3 * BLOCK_SIZE, Buffer.alloc(4096, 2));
    await until("both are put", () => upload.isSettled(0) && upload.isSettled(3));
    await device.write(0, Buffer.alloc(512, 3));
    expect(upload.isSettled(0)).toBe(false);
    await until("put again", () => upload.isSettled(0));
    await background.stop();
    const { puts } = api;
    expect(puts).toBeGreaterThanOrEqual(3);
    await commit(session, device, api, { upload });
    expect(api.puts).toBe(puts);
    const model = new Model(base.bytes);
    model.fill(0, 4096, 1);
    model.fill(0, 512, 3);
    model.fill(3 * BLOCK_SIZE, 4096, 2);
    expect(model.differences(api.completed[0]!)).toEqual([]);
    await device.close();
    await session.close();
  });

  test("keeps the pending snapshot alive, and begins anew when it died all the same", async () => {
    const session = await begin();
    const device = await OverlayDevice.open(session, base);
    const upload = await Upload.open(session, device, api);
    const options = { quietMs: 20, timeoutMinutes: 0.005 };
    const background = new BackgroundUpload(upload, options);
    scratch.undo(() => background.stop());
    await device.write(0, Buffer.alloc(4096, 1));
    await until("put", () => upload.isSettled(0));
    await until("put to keep it alive", () => api.puts >= 3);
    api.killPending();
    await until("put into another", () => api.snapshots[1]?.blocks.has(0));
    await background.stop();
    await commit(session, device, api, { upload });
    expect(api.completed.map(({ id }) => id)).toEqual([api.snapshots[1]!.id]);
    await device.close();
    await session.close();
  });

  test("does no harm while the service fails, and goes on after", async () => {
    const session = await begin();
    const device = await OverlayDevice.open(session, base);
    const upload = await Upload.open(session, device, api);
    const lines: string[] = [];
    api.fate = () => "failed";
    const background = new BackgroundUpload(upload, {
      quietMs: 20,
      log: (_level, message) => lines.push(message),
    });
    scratch.undo(() => background.stop());
    await device.write(0, Buffer.alloc(4096, 1));
    await until("it failed", () => lines.length > 0);
    await device.write(4096, Buffer.alloc(4096, 2));
    api.fate = () => "done";
    await until("put", () => upload.isSettled(0));
    await background.stop();
    await commit(session, device, api, { upload });
    expect(api.completed).toHaveLength(1);
    await device.close();
    await session.close();
  });
});
