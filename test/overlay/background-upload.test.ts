/** Blocks that have been quiet are put while the mount is in use. */
import { expect } from "vitest";
import { BLOCK_SIZE } from "../../src/common/sizes.js";
import { BackgroundUpload } from "../../src/overlay/background-upload.js";
import { until } from "../support/scratch.js";
import { test } from "./written-volume.js";

test("puts quiet blocks, again where they change, and leaves nothing to the commit", async ({
  volume,
}) => {
  const upload = await volume.openUpload();
  const background = new BackgroundUpload(upload, { quietMs: 20, concurrency: 2 });
  await volume.write(0, 4096, 1);
  await volume.write(3 * BLOCK_SIZE, 4096, 2);
  await until("both are put", () => upload.isSettled(0) && upload.isSettled(3));
  await volume.write(0, 512, 3);
  expect(upload.isSettled(0)).toBe(false);
  await until("put again", () => upload.isSettled(0));
  await background.stop();
  const { puts } = volume.api;
  expect(puts).toBeGreaterThanOrEqual(3);
  await volume.commit();
  expect(volume.api.puts).toBe(puts);
  expect(volume.differences(volume.api.completed[0]!)).toEqual([]);
});

test("keeps the pending snapshot alive, and begins anew when it died all the same", async ({
  scratch,
  volume,
}) => {
  const upload = await volume.openUpload();
  const options = { quietMs: 20, timeoutMinutes: 0.005 };
  const background = new BackgroundUpload(upload, options);
  scratch.undo(() => background.stop());
  await volume.write(0, 4096, 1);
  await until("put", () => upload.isSettled(0));
  await until("put to keep it alive", () => volume.api.puts >= 3);
  volume.api.killPending();
  await until("put into another", () => volume.api.snapshots[1]?.blocks.has(0));
  await background.stop();
  await volume.commit();
  expect(volume.api.completed.map(({ id }) => id)).toEqual([volume.api.snapshots[1]!.id]);
});

test("does no harm while the service fails, and goes on after", async ({ scratch, volume }) => {
  const upload = await volume.openUpload();
  const lines: string[] = [];
  volume.api.fate = () => "failed";
  const background = new BackgroundUpload(upload, {
    quietMs: 20,
    log: (_level, message) => lines.push(message),
  });
  scratch.undo(() => background.stop());
  await volume.write(0, 4096, 1);
  await until("it failed", () => lines.length > 0);
  await volume.write(4096, 4096, 2);
  volume.api.fate = () => "done";
  await until("put", () => upload.isSettled(0));
  await background.stop();
  await volume.commit();
  expect(volume.api.completed).toHaveLength(1);
});
