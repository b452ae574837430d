import { createHash, randomBytes } from "node:crypto";
import { afterEach, expect, test } from "vitest";
import { BLOCK_SIZE } from "../../src/common/sizes.js";
import { createEbsApi } from "../../src/ebs/create.js";
import { EbsError } from "../../src/ebs/errors.js";
import { Meter } from "../../src/ebs/meter.js";
import type { SdkEbs } from "../../src/ebs/sdk-ebs.js";
import {
  type Answer,
  block,
  exception,
  json,
  type StubService,
  startStub,
} from "./stub-service.js";

process.env.AWS_ACCESS_KEY_ID = "test";
process.env.AWS_SECRET_ACCESS_KEY = "test";

const DATA = randomBytes(BLOCK_SIZE);
const closers: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

async function pool(answer: Answer): Promise<{ api: SdkEbs; stub: StubService; meter: Meter }> {
  const stub = await startStub(answer);
  const meter = new Meter();
  const options = { endpointUrl: stub.url, region: "us-east-1", meter, ioTimeoutMs: 5_000 };
  const api = createEbsApi({ ...options, threads: 2 });
  closers.push(() => api.close(), stub.close);
  return { api, stub, meter };
}

function sharedBlocks(count: number): Uint8Array[] {
  const memory = new SharedArrayBuffer(count * BLOCK_SIZE);
  return Array.from(
    { length: count },
    (_, i) => new Uint8Array(memory, i * BLOCK_SIZE, BLOCK_SIZE),
  );
}

test("blocks got in parallel are right, in shared and in own memory, counted once", async () => {
  const { api, meter, stub } = await pool((request, response, body) => {
    const index = Number(/blocks\/(\d+)/.exec(request.url ?? "")?.[1]);
    const data = Buffer.from(DATA);
    data.writeUInt32LE(index, 1000);
    block(data)(request, response, body);
  });
  const targets = [
    ...sharedBlocks(40),
    ...Array.from({ length: 20 }, () => Buffer.alloc(BLOCK_SIZE)),
  ];
  for (let round = 0; round < 3; round += 1) {
    await Promise.all(
      targets.map((target, i) => api.getSnapshotBlock("snap-1", round * 100 + i, "AAAA", target)),
    );
    targets.forEach((target, i) => {
      const expected = Buffer.from(DATA);
      expected.writeUInt32LE(round * 100 + i, 1000);
      expect(Buffer.compare(Buffer.from(target), expected)).toBe(0);
    });
  }
  expect(stub.requests.length).toBe(180);
  expect(meter.read()).toMatchObject({ calls: 180, requests: 180, bytesFetched: 180 * BLOCK_SIZE });
});

test("puts give the digest, from shared and from own memory", async () => {
  const seen = new Set<string>();
  const { api } = await pool((request, response, body) => {
    seen.add(createHash("sha256").update(body).digest("base64"));
    json({}, 201)(request, response, body);
  });
  const blocks = [
    ...sharedBlocks(10),
    ...Array.from({ length: 10 }, () => Buffer.alloc(BLOCK_SIZE)),
  ];
  for (let round = 0; round < 2; round += 1) {
    for (const [i, data] of blocks.entries()) data.fill(round * 50 + i);
    const digests = await Promise.all(
      blocks.map((data, i) => api.putSnapshotBlock("snap-1", i, data)),
    );
    digests.forEach((digest, i) => {
      const expected = createHash("sha256")
        .update(blocks[i] as Uint8Array)
        .digest();
      expect(Buffer.compare(Buffer.from(digest), expected)).toBe(0);
      expect(seen).toContain(expected.toString("base64"));
    });
  }
});

/** Has the workers started; from then on they do the work. */
async function warmUp(api: SdkEbs): Promise<void> {
  const blocks = sharedBlocks(8);
  await Promise.allSettled(
    blocks.map((target, i) => api.getSnapshotBlock("snap-1", i, "AAAA", target)),
  );
  await expect.poll(() => api.readyThreads, { timeout: 10_000 }).toBe(2);
}

test("errors come back whole from a worker", async () => {
  const { api } = await pool(exception("AccessDeniedException", 403));
  await warmUp(api);
  const [target] = sharedBlocks(1);
  const error = await api
    .getSnapshotBlock("snap-1", 7, "AAAA", target as Uint8Array)
    .catch((e) => e);
  expect(error).toBeInstanceOf(EbsError);
  expect(error).toMatchObject({ errno: "EACCES", blockIndex: 7, requestId: "req-2" });
});

test("an abort reaches the worker, and the target is left alone once it has ended", async () => {
  let hold = false;
  const held: (() => void)[] = [];
  const { api } = await pool((request, response, body) => {
    if (!hold) return block(DATA)(request, response, body);
    response.writeHead(200, { "content-length": BLOCK_SIZE });
    response.write(DATA.subarray(0, 100_000));
    held.push(() => response.end(DATA.subarray(100_000)));
  });
  await warmUp(api);
  hold = true;
  const stop = new AbortController();
  const targets = sharedBlocks(6);
  const gets = targets.map((target, i) =>
    api.getSnapshotBlock("snap-1", i, "AAAA", target, stop.signal),
  );
  const ends = Promise.allSettled(gets);
  await expect.poll(() => held.length).toBe(6);
  stop.abort();
  for (const end of await ends) {
    expect(end).toMatchObject({ status: "rejected", reason: { errno: "EINTR" } });
  }
  for (const target of targets) target.fill(0);
  for (const finish of held) finish();
  await new Promise((resolve) => setTimeout(resolve, 50));
  for (const target of targets) expect(target.every((byte) => byte === 0)).toBe(true);
});

test("closing ends the threads; what is in flight fails", async () => {
  let hold = false;
  const { api, stub } = await pool((request, response, body) => {
    if (!hold) block(DATA)(request, response, body);
  });
  await warmUp(api);
  hold = true;
  const before = stub.requests.length;
  const gets = sharedBlocks(4).map((target) => api.getSnapshotBlock("snap-1", 1, "AAAA", target));
  const ends = Promise.allSettled(gets);
  await expect.poll(() => stub.requests.length).toBe(before + 4);
  await api.close();
  for (const end of await ends) expect(end.status).toBe("rejected");
});
