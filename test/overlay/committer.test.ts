/** Overlay to snapshot: what is put, and that there is exactly one right snapshot whatever fails. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { expect } from "vitest";
import { BLOCK_SIZE, GIB } from "../../src/common/sizes.js";
import { BASE_BYTE, PARENT, test, WrittenVolume } from "./written-volume.js";

/** The service took the completion, takes its time, and its answer never came. */
async function loseCompletion(volume: WrittenVolume): Promise<void> {
  await volume.write(0, 4096, 5);
  volume.api.slowness = 8;
  volume.api.fate = (operation) => (operation === "CompleteSnapshot" ? "lost" : "done");
  await expect(volume.commit()).rejects.toMatchObject({ errno: "ETIMEDOUT" });
  volume.api.fate = () => "done";
}

test("puts what differs from the base and nothing else", async ({ volume }) => {
  await volume.write(10, 100, 7);
  await volume.write(BLOCK_SIZE, BLOCK_SIZE, BASE_BYTE); // as it was
  await volume.write(2 * BLOCK_SIZE, 4096, 0); // zeros where the base has nothing
  await volume.write(3 * BLOCK_SIZE + 512, 512, 1);
  await volume.discard(4 * BLOCK_SIZE, BLOCK_SIZE);
  await volume.discard(100 * BLOCK_SIZE, GIB - 100 * BLOCK_SIZE);
  await volume.write(GIB - 5, 5, 9);
  const progress: { blocksDone: number; blocksTotal: number; bytes: number }[] = [];
  const result = await volume.commit({
    concurrency: 4,
    onProgress: (now) => progress.push(now),
  });
  const [snapshot] = volume.api.completed;
  expect(result.snapshotId).toBe(snapshot!.id);
  expect([...snapshot!.blocks.keys()].sort((a, b) => a - b)).toEqual([0, 2, 3, 4, 2047]);
  expect(volume.differences(snapshot!)).toEqual([]);
  expect(snapshot!.parent).toBe(PARENT);
  expect(volume.api.puts).toBe(5);
  expect(volume.api.mostPutting).toBeLessThanOrEqual(4);
  expect(progress.at(-1)).toEqual({ blocksDone: 6, blocksTotal: 6, bytes: 5 * BLOCK_SIZE });
  expect(volume.session.record).toMatchObject({
    state: "committed",
    resultSnapshotId: snapshot!.id,
  });
  expect(await volume.commit()).toEqual(result);
  await expect(volume.write(0, 1, 1)).rejects.toMatchObject({ errno: "EROFS" });
  await volume.close();
  expect(volume.base.viewsHeld).toBe(0);
});

test.for([false, true])(
  "makes no snapshot where nothing differs; written: %s",
  async (written, { volume }) => {
    if (written) await volume.write(0, 4096, BASE_BYTE);
    expect(await volume.commit()).toEqual({ snapshotId: undefined });
    expect(volume.session.record.state).toBe("committed");
    expect(volume.api.snapshots).toHaveLength(0);
  },
);

test("puts zeros that were written and no discards, in whole blocks and parts", async ({
  volume,
}) => {
  await volume.zero(10 * BLOCK_SIZE, 3 * BLOCK_SIZE);
  await volume.zero(20 * BLOCK_SIZE + 4096, 512);
  await volume.write(30 * BLOCK_SIZE, BLOCK_SIZE, 0);
  await volume.write(31 * BLOCK_SIZE, 1, 0);
  await volume.discard(40 * BLOCK_SIZE, BLOCK_SIZE);
  await volume.discard(50 * BLOCK_SIZE + 4096, 4096);
  await volume.write(60 * BLOCK_SIZE, 4096, 1);
  await volume.discard(60 * BLOCK_SIZE, 4096);
  await volume.discard(70 * BLOCK_SIZE, BLOCK_SIZE);
  await volume.zero(70 * BLOCK_SIZE + 100, 10);
  await volume.reopen();
  await volume.commit();
  const [snapshot] = volume.api.completed;
  const put = [...snapshot!.blocks.keys()].sort((a, b) => a - b);
  expect(put).toEqual([10, 11, 12, 20, 30, 31, 70]);
  expect(volume.differences(snapshot)).toEqual([]);
});

test("puts zeros over what was put once and discarded since", async ({ volume }) => {
  const upload = await volume.openUpload();
  await volume.write(10 * BLOCK_SIZE, BLOCK_SIZE, 1);
  expect(await upload.settle(10)).toBe("put");
  await volume.discard(10 * BLOCK_SIZE, BLOCK_SIZE);
  await volume.commit();
  expect(volume.differences(volume.api.completed[0])).toEqual([]);
  expect(volume.api.completed[0]!.blocks.get(10)).toEqual(Buffer.alloc(BLOCK_SIZE));
});

test("makes no snapshot of discards alone where the base has nothing", async ({ volume }) => {
  await volume.discard(10 * BLOCK_SIZE, 20 * BLOCK_SIZE);
  expect(await volume.commit()).toEqual({ snapshotId: undefined });
});

test("completes a snapshot into which only reverted blocks were put", async ({ volume }) => {
  const upload = await volume.openUpload();
  await volume.write(0, 4096, 1);
  expect(await upload.settle(0)).toBe("put");
  await volume.write(0, 4096, BASE_BYTE);
  expect(upload.isSettled(0)).toBe(false);
  await volume.commit();
  expect(volume.differences(volume.api.completed[0]!)).toEqual([]);
  expect(volume.api.completed[0]!.blocks.size).toBe(1);
});

test("does not call a put settled that a write overtook", async ({ volume }) => {
  const upload = await volume.openUpload();
  await volume.write(0, 4096, 1);
  volume.api.beforePut = () => volume.write(0, 4096, 2);
  await upload.settle(0);
  expect(upload.isSettled(0)).toBe(false);
  volume.api.beforePut = () => {};
  await volume.commit();
  expect(volume.differences(volume.api.completed[0]!)).toEqual([]);
});

test("knows that a block went back to what was put before the last put", async ({ volume }) => {
  const upload = await volume.openUpload();
  await volume.write(0, 4096, 1);
  await upload.settle(0);
  await volume.write(0, 4096, 2);
  volume.api.fate = (operation) => (operation === "PutSnapshotBlock" ? "lost" : "done");
  await expect(upload.settle(0)).rejects.toMatchObject({ errno: "ETIMEDOUT" });
  volume.api.fate = () => "done";
  await volume.write(0, 4096, 1);
  await volume.reopen();
  await volume.commit();
  // Known, and not only noticed by the checksum at the end and made good by another attempt.
  expect(volume.api.snapshots).toHaveLength(1);
  expect(volume.api.completed).toHaveLength(1);
  expect(volume.differences(volume.api.completed[0]!)).toEqual([]);
});

test("begins anew where the pending snapshot died, and loses nothing", async ({ volume }) => {
  const upload = await volume.openUpload();
  for (let block = 0; block < 4; block++) {
    await volume.write(block * BLOCK_SIZE, 4096, block + 1);
    await upload.settle(block);
  }
  volume.api.killPending();
  await volume.write(5 * BLOCK_SIZE, 512, 9);
  const { snapshotId } = await volume.commit();
  expect(volume.api.snapshots).toHaveLength(2);
  expect(snapshotId).toBe(volume.api.snapshots[1]!.id);
  expect(volume.differences(volume.api.snapshots[1]!)).toEqual([]);
  expect(volume.session.record.abandoned).toEqual([volume.api.snapshots[0]!.id]);
});

test("begins anew where the pending snapshot died with nothing left to put", async ({ volume }) => {
  const upload = await volume.openUpload();
  await volume.write(0, 4096, 5);
  await upload.settle(0);
  volume.api.killPending();
  await volume.commit();
  expect(volume.api.completed).toHaveLength(1);
  expect(volume.differences(volume.api.completed[0]!)).toEqual([]);
});

test("waits for a slow completion whose answer was lost, and makes no other snapshot", async ({
  volume,
}) => {
  await loseCompletion(volume);
  await volume.commit();
  expect(volume.api.snapshots).toHaveLength(1);
  expect(volume.api.completed).toHaveLength(1);
});

test("a completion that was taken, refused when asked again, makes no other snapshot", async ({
  volume,
}) => {
  await loseCompletion(volume);
  volume.api.refusal = (operation) =>
    operation === "CompleteSnapshot" ? "ResourceNotFoundException" : undefined;
  await volume.commit();
  expect(volume.api.snapshots).toHaveLength(1);
  expect(volume.api.completed).toHaveLength(1);
});

test.for(["ResourceNotFoundException", "ConflictException"])(
  "a completion that is refused with %s for good leaves one snapshot, and the session",
  { timeout: 20_000 },
  async (exception, { volume }) => {
    await volume.write(0, 4096, 5);
    volume.api.refusal = (operation) => (operation === "CompleteSnapshot" ? exception : undefined);
    await expect(volume.commit()).rejects.toMatchObject({ exception });
    expect(volume.api.snapshots).toHaveLength(1);
    volume.api.refusal = () => undefined;
    const { snapshotId } = await volume.commit();
    expect(volume.api.snapshots.map(({ id }) => id)).toEqual([snapshotId]);
  },
);

test("a service that forgets the client token is asked for the snapshot itself", async ({
  volume,
}) => {
  await volume.write(0, 4096, 5);
  const upload = await volume.openUpload();
  await upload.settle(0);
  volume.api.forgetful = true;
  let refusals = 1;
  volume.api.refusal = (operation) =>
    operation === "CompleteSnapshot" && refusals-- > 0 ? "ConflictException" : undefined;
  const { snapshotId } = await volume.commit();
  // The one that it made when asked is known, and has nothing in it.
  expect(snapshotId).toBe(volume.api.snapshots[0]!.id);
  expect(volume.api.completed).toHaveLength(1);
  expect(volume.differences(volume.api.completed[0]!)).toEqual([]);
  expect(volume.session.record.abandoned).toEqual(
    volume.api.snapshots.slice(1).map(({ id }) => id),
  );
}, 20_000);

test("is begun anew any number of times, as long as something can be put in between", async ({
  volume,
}) => {
  const upload = await volume.openUpload();
  for (let round = 1; round <= 6; round += 1) {
    await volume.write(0, 4096, round);
    await upload.settle(0);
    volume.api.killPending();
  }
  await volume.commit();
  expect(volume.differences(volume.api.completed[0]!)).toEqual([]);
  expect(volume.session.record.abandoned).toHaveLength(6);
});

test("not waited for, it is not over: the session stays, and the next commit sees the end", async ({
  volume,
}) => {
  await volume.write(0, 4096, 5);
  volume.api.slowness = 3;
  const taken = await volume.commit({ wait: false });
  expect(taken).toEqual({ snapshotId: volume.api.snapshots[0]!.id, isPending: true });
  expect(volume.session.record.state).toBe("committing");
  expect(await volume.commit()).toEqual({ snapshotId: taken.snapshotId });
  expect(volume.session.record.state).toBe("committed");
  expect(volume.api.snapshots).toHaveLength(1);
});

test("goes on where the log of what was put is damaged", async ({ volume }) => {
  const upload = await volume.openUpload();
  for (const block of [0, 1, 4]) {
    await volume.write(block * BLOCK_SIZE, 4096, 5);
    await upload.settle(block);
    await upload.attempt.log.sync();
  }
  // Put once, and the base's again: only the log knows that it has to be put back.
  await volume.write(BLOCK_SIZE, 4096, BASE_BYTE);
  await volume.close();
  const log = join(volume.session.path, "uploads-1");
  const bytes = readFileSync(log);
  bytes[512 + 60]! ^= 1;
  writeFileSync(log, bytes);
  await volume.reopen();
  await volume.commit();
  expect(volume.api.completed).toHaveLength(1);
  expect(volume.differences(volume.api.completed[0]!)).toEqual([]);
}, 20_000);

test("makes exactly one right snapshot, whatever fails and wherever it is cut off", async ({
  scratch,
}) => {
  const step = fc.record({
    block: fc.constantFrom(0, 1, 2, 3, 4, 5, 7, 2047),
    start: fc.nat(3).map((n) => n * 700),
    length: fc.constantFrom(300, 512, 5000, BLOCK_SIZE - 3 * 700),
    byte: fc.constantFrom(0, 1, 2, BASE_BYTE),
    how: fc.constantFrom<"write" | "zero" | "discard">("write", "write", "zero", "discard"),
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
      const volume = await WrittenVolume.begin(scratch);
      const { api } = volume;
      api.slowness = slowness;
      let faults = 25;
      api.fate = () => {
        const n = dice.next().value;
        if (faults === 0 || n > 4) return "done";
        faults -= 1;
        return n > 2 ? "failed" : "lost";
      };
      let upload = await volume.openUpload(4);
      const reopen = async () => {
        await volume.reopen();
        upload = await volume.openUpload(4);
      };
      for (const { block, start, length, byte, ...then } of steps) {
        const offset = block * BLOCK_SIZE + start;
        if (then.how !== "write") await volume[then.how](offset, length);
        else await volume.write(offset, length, byte);
        if (then.upload) await upload.settle(block).catch(() => {});
        if (then.kill) api.killPending();
        if (then.reopen) await reopen();
      }
      let result: { snapshotId: string | undefined } | undefined;
      for (let tries = 0; result === undefined; tries++) {
        expect(tries).toBeLessThan(60);
        try {
          result = await volume.commit({ concurrency: 4 });
        } catch (error) {
          expect(String(error)).toContain("timed out");
          await reopen();
        }
      }
      expect(api.completed.length).toBe(result.snapshotId === undefined ? 0 : 1);
      const [snapshot] = api.completed;
      expect(volume.differences(snapshot)).toEqual([]);
      expect(snapshot?.id).toBe(result.snapshotId);
      await volume.close();
      await volume.session.remove();
    }),
    { numRuns: 40 },
  );
});
