/** The whole read stack against the local endpoint with its faults on: the sum is right, or it fails. */
import { createHash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { BLOCK_SIZE, GIB, MIB, TIB } from "../../src/common/sizes.js";
import {
  createBlockCache,
  openSnapshotDevice,
  type SnapshotDevice,
} from "../../src/device/snapshot-device.js";
import type { EbsApi } from "../../src/ebs/api.js";
import { createEbsApi } from "../../src/ebs/create.js";
import { Meter } from "../../src/ebs/meter.js";
import type { EbsOptions } from "../../src/ebs/sdk-ebs.js";
import { type Endpoint, startEndpoint } from "../../src/server/endpoint.js";
import type { FaultRule } from "../../src/server/fault-rule.js";
import { type SyntheticSpec, syntheticBytes } from "../../src/server/synthetic.js";

process.env.AWS_ACCESS_KEY_ID = "test";
process.env.AWS_SECRET_ACCESS_KEY = "test";

let folder: string;
let endpoint: Endpoint | undefined;
const closers: (() => Promise<void>)[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "ebsmount-device-"));
});

afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
  await endpoint?.close();
  endpoint = undefined;
  await rm(folder, { recursive: true, force: true });
});

interface Stack {
  readonly device: SnapshotDevice;
  readonly api: EbsApi;
  readonly meter: Meter;
}

async function open(
  spec: SyntheticSpec,
  faults: FaultRule[] = [],
  options: Partial<EbsOptions> & { blockTokenLifeMs?: number } = {},
): Promise<Stack> {
  const { blockTokenLifeMs, ioTimeoutMs, concurrency } = options;
  endpoint = await startEndpoint({
    store: folder,
    faults,
    ...(blockTokenLifeMs !== undefined && { blockTokenLifeMs }),
  });
  const meter = new Meter();
  const api = createEbsApi({ endpointUrl: endpoint.url, region: "us-east-1", meter, ...options });
  const cache = createBlockCache({
    bytes: 24 * MIB,
    ...(ioTimeoutMs !== undefined && { ioTimeoutMs }),
    ...(concurrency !== undefined && { concurrency }),
    throttles: () => meter.throttles("GetSnapshotBlock"),
  });
  const snapshotId = endpoint.createSynthetic(spec);
  const device = await openSnapshotDevice({ api, cache, snapshotId });
  closers.push(
    () => api.close(),
    async () => {
      await device.close();
      cache.close();
    },
  );
  return { device, api, meter };
}

/** SHA-256 of the first `length` bytes, read in pieces of odd sizes, several at a time. */
async function sumOf(device: SnapshotDevice, length: number): Promise<string> {
  const hash = createHash("sha256");
  const size = 777_777;
  for (let at = 0; at < length; at += 4 * size) {
    const targets = [0, 1, 2, 3]
      .map((i) => at + i * size)
      .filter((offset) => offset < length)
      .map((offset) => ({ offset, bytes: Buffer.alloc(Math.min(size, length - offset), 0x5a) }));
    await Promise.all(targets.map(({ offset, bytes }) => device.read(offset, bytes)));
    for (const { bytes } of targets) hash.update(bytes);
  }
  return hash.digest("hex");
}

const SPEC: SyntheticSpec = { volumeSizeGiB: 1, written: 0.5, seed: 3 };
const LENGTH = 100 * MIB;

function expectedSum(): string {
  return createHash("sha256")
    .update(syntheticBytes(SPEC, 0, LENGTH))
    .digest("hex");
}

test("with every recoverable fault at once the sum is right", async () => {
  const faults: FaultRule[] = [
    { action: "latency", ms: 1, jitterMs: 5, seed: 1 },
    { action: "error", name: "InternalServerException", status: 500, probability: 0.05, seed: 2 },
    {
      action: "error",
      name: "RequestThrottledException",
      status: 400,
      reason: "ACCOUNT_THROTTLED",
      probability: 0.05,
      seed: 3,
    },
    { action: "reset", probability: 0.05, seed: 4 },
    { action: "cut", operations: ["GetSnapshotBlock"], probability: 0.05, seed: 5 },
    { action: "cut", operations: ["GetSnapshotBlock"], clean: true, probability: 0.05, seed: 6 },
    { action: "corrupt", operations: ["GetSnapshotBlock"], probability: 0.05, seed: 7 },
    { action: "checksum", operations: ["GetSnapshotBlock"], probability: 0.05, seed: 8 },
    { action: "expired-token", operations: ["GetSnapshotBlock"], count: 5, seed: 9 },
    { action: "short-page", entries: 7, probability: 0.3, seed: 10 },
    { action: "empty-page", probability: 0.3, seed: 11 },
  ];
  const { device, meter } = await open(SPEC, faults);
  expect(await sumOf(device, LENGTH)).toBe(expectedSum());
  expect(meter.read().retries).toBeGreaterThan(10);
});

test.each([
  ["corrupt", "EIO"],
  ["checksum", "EIO"],
  ["cut", "EIO"],
  ["reset", "ETIMEDOUT"],
  ["hang", "ETIMEDOUT"],
] as const)("when every get ends in %s the read fails with %s", async (action, errno) => {
  const { device } = await open(SPEC, [{ action, operations: ["GetSnapshotBlock"] }], {
    ioTimeoutMs: 1_500,
  });
  await expect(sumOf(device, LENGTH)).rejects.toMatchObject({ errno });
});

test("readers in line behind fetches that hang wait for --io-timeout, not for each of them", async () => {
  const hang: FaultRule = { action: "hang", operations: ["GetSnapshotBlock"] };
  const { device } = await open(SPEC, [hang], { ioTimeoutMs: 1_500, concurrency: 1 });
  const start = performance.now();
  const reads = Array.from({ length: 12 }, (_, i) =>
    device.read(i * 7 * MIB, Buffer.alloc(4096)).then(
      () => undefined,
      (error: unknown) => error,
    ),
  );
  // Of what is a hole there is nothing to wait for.
  const failed = (await Promise.all(reads)).filter((error) => error !== undefined);
  expect(failed.length).toBeGreaterThan(3);
  for (const error of failed) expect(error).toMatchObject({ errno: "ETIMEDOUT" });
  expect(performance.now() - start).toBeLessThan(2 * 1_500);
});

test("what only readers that gave up wanted is not fetched any more", async () => {
  const hang: FaultRule = { action: "hang", operations: ["GetSnapshotBlock"] };
  const { device } = await open(SPEC, [hang], { concurrency: 2 });
  const stop = new AbortController();
  const reads = Array.from({ length: 12 }, (_, i) =>
    device.view(i * 7 * MIB, 4096, stop.signal).catch((error: unknown) => error),
  );
  await expect.poll(() => device.cache.statistics().fetchesRunning).toBe(2);
  stop.abort();
  await Promise.all(reads);
  await expect
    .poll(() => device.cache.statistics())
    .toMatchObject({ fetchesRunning: 0, fetchesWaiting: 0 });
});

test("tokens that expire all the time are listed again", async () => {
  const { device } = await open(SPEC, [], { blockTokenLifeMs: 400 });
  expect(await sumOf(device, LENGTH)).toBe(expectedSum());
});

test("a snapshot that is deleted while mounted is ESTALE", async () => {
  const { device } = await open(SPEC);
  endpoint?.removeSnapshot(device.snapshotId);
  await expect(sumOf(device, LENGTH)).rejects.toMatchObject({ errno: "ESTALE" });
});

test("64 TiB fully written: any block in two list calls and one get", async () => {
  const spec: SyntheticSpec = { volumeSizeGiB: 65_536, written: 1, seed: 9 };
  const { device, meter } = await open(spec);
  const offset = 63 * TIB + 5 * GIB + 4096;
  const target = Buffer.alloc(4096);
  await device.read(offset, target);
  expect(target.equals(syntheticBytes(spec, offset, 4096))).toBe(true);
  const { operations } = meter.read();
  expect(operations.ListSnapshotBlocks.requests).toBe(2);
  expect(operations.GetSnapshotBlock.requests).toBe(1);
  const before = process.memoryUsage().rss;
  for (let i = 0; i < 200; i += 1) {
    const at = Math.floor(((i * 0.618_034) % 1) * (65_536 * 2048)) * BLOCK_SIZE;
    await device.read(at, target);
    if (i % 20 === 0) expect(target.equals(syntheticBytes(spec, at, 4096))).toBe(true);
  }
  expect(process.memoryUsage().rss - before).toBeLessThan(400 * MIB);
});
