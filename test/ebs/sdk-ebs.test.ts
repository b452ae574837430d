import { createHash, randomBytes } from "node:crypto";
import { afterEach, expect, test } from "vitest";
import { BLOCK_SIZE } from "../../src/common/sizes.js";
import type { EbsApi } from "../../src/ebs/api.js";
import { createEbsApi } from "../../src/ebs/create.js";
import { EbsError, isMalformed } from "../../src/ebs/errors.js";
import { Meter } from "../../src/ebs/meter.js";
import type { EbsOptions } from "../../src/ebs/sdk-ebs.js";
import {
  type Answer,
  block,
  cutBlock,
  exception,
  hang,
  json,
  reset,
  type StubService,
  startStub,
} from "./stub-service.js";

const SNAPSHOT = "snap-0123456789abcdef0";
const closers: (() => Promise<void>)[] = [];
process.env.AWS_ACCESS_KEY_ID = "test";
process.env.AWS_SECRET_ACCESS_KEY = "test";

afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

async function serve(
  options: Partial<EbsOptions>,
  ...answers: Answer[]
): Promise<{ api: EbsApi; stub: StubService; meter: Meter }> {
  const stub = await startStub(...answers);
  const meter = new Meter();
  const api = createEbsApi({ endpointUrl: stub.url, region: "us-east-1", meter, ...options });
  closers.push(() => api.close(), stub.close);
  return { api, stub, meter };
}

async function failure(promise: Promise<unknown>): Promise<EbsError> {
  const error = await promise.then(
    () => undefined,
    (e: unknown) => e,
  );
  expect(error).toBeInstanceOf(EbsError);
  return error as EbsError;
}

const DATA = randomBytes(BLOCK_SIZE);
const shared = () => new Uint8Array(new SharedArrayBuffer(BLOCK_SIZE));

test("a block arrives whole and verified, also in shared memory", async () => {
  const { api, stub, meter } = await serve({}, block(DATA));
  const target = shared();
  await api.getSnapshotBlock(SNAPSHOT, 7, "AAAB+/=", target);
  expect(Buffer.compare(Buffer.from(target), DATA)).toBe(0);
  expect(stub.requests[0]).toBe(`GET /snapshots/${SNAPSHOT}/blocks/7?blockToken=AAAB%2B%2F%3D`);
  expect(meter.read()).toMatchObject({
    calls: 1,
    requests: 1,
    retries: 0,
    bytesFetched: BLOCK_SIZE,
  });
});

test("cut bodies, resets, 5xx, throttling and damaged blocks are tried again", async () => {
  const damaged = Buffer.from(DATA);
  damaged[1000] = (damaged[1000] as number) ^ 1;
  const { api, meter } = await serve(
    {},
    cutBlock(DATA, 70_000),
    reset,
    exception("InternalServerException", 500),
    exception("RequestThrottledException", 400, { Reason: "ACCOUNT_THROTTLED" }),
    block(damaged, { "x-amz-Checksum": createHash("sha256").update(DATA).digest("base64") }),
    block(DATA.subarray(0, 4096)),
    (_q, r) => r.writeHead(503, {}).end("<html>busy</html>"),
    block(DATA),
  );
  const target = shared();
  await api.getSnapshotBlock(SNAPSHOT, 7, "AAAB", target);
  expect(Buffer.compare(Buffer.from(target), DATA)).toBe(0);
  expect(meter.read()).toMatchObject({
    calls: 1,
    requests: 8,
    retries: 7,
    throttles: 1,
    failures: 0,
  });
});

test("a block that stays damaged is EIO after a bounded number of attempts", async () => {
  const { api, stub } = await serve({}, block(DATA, { "x-amz-Checksum": "AAAA" }));
  const error = await failure(api.getSnapshotBlock(SNAPSHOT, 3, "AAAB", shared()));
  expect(error).toMatchObject({ errno: "EIO", blockIndex: 3, exception: "ChecksumMismatch" });
  expect(stub.requests.length).toBe(8);
});

test("a block too long is refused", async () => {
  const { api } = await serve({}, block(Buffer.concat([DATA, DATA])));
  const error = await failure(api.getSnapshotBlock(SNAPSHOT, 3, "AAAB", shared()));
  expect(error).toMatchObject({ errno: "EIO", exception: "body-too-long" });
});

test("a block without a checksum is refused, not trusted", async () => {
  const { api, stub } = await serve({}, block(DATA, { "x-amz-Checksum": undefined }));
  const error = await failure(api.getSnapshotBlock(SNAPSHOT, 3, "AAAB", shared()));
  expect(error.errno).toBe("EIO");
  expect(error.message).toContain("without its checksum");
  expect(stub.requests.length).toBe(1);
});

test("a server that hangs is ETIMEDOUT at the deadline, after more than one attempt", async () => {
  const { api, stub } = await serve({ ioTimeoutMs: 900 }, hang);
  const error = await failure(api.getSnapshotBlock(SNAPSHOT, 3, "AAAB", shared()));
  expect(error.errno).toBe("ETIMEDOUT");
  expect(stub.requests.length).toBeGreaterThan(1);
});

test("after a failure nothing more is written into the target", async () => {
  let finish = () => {};
  const { api } = await serve({ ioTimeoutMs: 600 }, (_q, r) => {
    r.writeHead(200, { "content-length": BLOCK_SIZE });
    r.write(DATA.subarray(0, 1000));
    finish = () => void r.end(DATA.subarray(1000));
  });
  const target = shared();
  await failure(api.getSnapshotBlock(SNAPSHOT, 3, "AAAB", target));
  target.fill(0);
  finish();
  await new Promise((resolve) => setImmediate(resolve));
  expect(target.every((byte) => byte === 0)).toBe(true);
});

test("abort ends the wait at once with EINTR", async () => {
  const { api, stub } = await serve({}, hang);
  const stop = new AbortController();
  const get = failure(api.getSnapshotBlock(SNAPSHOT, 3, "AAAB", shared(), stop.signal));
  await expect.poll(() => stub.requests.length).toBe(1);
  stop.abort();
  expect((await get).errno).toBe("EINTR");
});

test.each([
  ["AccessDeniedException", 403, {}, "EACCES", /ebs:GetSnapshotBlock/],
  [
    "ResourceNotFoundException",
    404,
    { Reason: "SNAPSHOT_NOT_FOUND" },
    "ESTALE",
    /no such snapshot/,
  ],
  ["ValidationException", 400, { Reason: "INVALID_BLOCK_TOKEN" }, "EIO", /INVALID_BLOCK_TOKEN/],
  ["ServiceQuotaExceededException", 402, {}, "EIO", /quota/],
  ["UnrecognizedClientException", 403, {}, "EACCES", /credentials were refused/],
])("%s is %d: one request, errno and advice", async (name, status, fields, errno, advice) => {
  const { api, stub } = await serve({}, exception(name, status, fields));
  const error = await failure(api.getSnapshotBlock(SNAPSHOT, 3, "SECRETTOKEN", shared()));
  expect(error).toMatchObject({ errno, requestId: "req-2", attempts: 1, httpStatus: status });
  expect(error.message).toMatch(advice);
  expect(error.message).not.toContain("SECRETTOKEN");
  expect(new EbsError(structuredClone(error.details())).message).toBe(error.message);
  expect(stub.requests.length).toBe(1);
});

test("expired credentials are renewed once", async () => {
  const { api, meter } = await serve({}, exception("ExpiredTokenException", 403), block(DATA));
  await api.getSnapshotBlock(SNAPSHOT, 3, "AAAB", shared());
  expect(meter.read().requests).toBe(2);
  const again = await serve({}, exception("ExpiredTokenException", 403));
  const error = await failure(again.api.getSnapshotBlock(SNAPSHOT, 3, "AAAB", shared()));
  expect(error).toMatchObject({ errno: "EACCES", attempts: 2 });
});

test("credentials that stay expired cost no connections", async () => {
  const expired = exception("ExpiredTokenException", 403);
  const { api, stub } = await serve({ concurrency: 4 }, expired);
  const read = () => failure(api.getSnapshotBlock(SNAPSHOT, 3, "AAAB", shared()));
  for (let round = 0; round < 20; round += 1) await Promise.all([read(), read(), read(), read()]);
  // Four at a time, here and in up to four threads; one for each of the eighty would be a leak.
  expect(stub.connections()).toBeLessThanOrEqual(20);
});

test("nothing listening: a sentence with the URL, soon", async () => {
  const stub = await startStub(hang);
  await stub.close();
  const api = createEbsApi({ endpointUrl: stub.url, region: "us-east-1" });
  closers.push(() => api.close());
  const error = await failure(api.listSnapshotBlocks(SNAPSHOT));
  expect(error.message).toContain(new URL(stub.url).host);
  expect(error.exception).toBe("unreachable");
});

test("a list page: parameters out, indexes and tokens in, whatever form numbers have", async () => {
  const { api, stub } = await serve(
    {},
    json({
      Blocks: [
        { BlockIndex: "3", BlockToken: "AA" },
        { BlockIndex: 5, BlockToken: "BB" },
        { BlockIndex: "9", BlockToken: "CC" },
      ],
      ExpiryTime: "1700000000",
      VolumeSize: "8",
      BlockSize: "banana",
    }),
  );
  const page = await api.listSnapshotBlocks(SNAPSHOT, { startingBlockIndex: 5, maxResults: 1000 });
  expect([...page.blockIndexes]).toEqual([5, 9]);
  expect(page.blockTokens).toEqual(["BB", "CC"]);
  expect(page).toMatchObject({ expiresAt: 1.7e12, volumeSizeGiB: 8, nextToken: undefined });
  expect(stub.requests[0]).toBe(
    `GET /snapshots/${SNAPSHOT}/blocks?maxResults=1000&startingBlockIndex=5`,
  );
});

test.each([
  [
    "descending",
    { Blocks: [entry(5), entry(4)], VolumeSize: 1, NextToken: "AA" },
    /block index 4 is listed after 5/,
  ],
  ["repeated", { Blocks: [entry(5), entry(5)], VolumeSize: 1 }, /listed after/],
  ["past the end", { Blocks: [entry(2048)], VolumeSize: 1 }, /past the 1 GiB volume/],
  [
    "negative",
    { Blocks: [{ BlockIndex: -1, BlockToken: "A" }], VolumeSize: 1 },
    /no valid BlockIndex/,
  ],
  ["no token", { Blocks: [{ BlockIndex: 1 }], VolumeSize: 1 }, /no BlockToken/],
  ["no size", { Blocks: [] }, /VolumeSize/],
  ["not an object", [1], /Blocks is missing/],
  ["under another name", { blocks: [entry(1)], VolumeSize: 1 }, /Blocks is missing/],
])("a list that is %s is refused", async (_name, answer, advice) => {
  const { api, stub } = await serve({}, json(answer));
  const error = await failure(api.listSnapshotBlocks(SNAPSHOT));
  expect(error.errno).toBe("EIO");
  expect(error.message).toMatch(advice);
  expect(stub.requests.length).toBe(1);
});

test("a list answer that is cut or a proxy's page is tried again", async () => {
  const page: Answer = (_request, response) => response.end("<html>busy</html>");
  const cut: Answer = (_request, response) => response.end('{"Blocks":[{"Blo');
  const { api, stub } = await serve({}, page, cut, json({ Blocks: [entry(1)], VolumeSize: 1 }));
  expect([...(await api.listSnapshotBlocks(SNAPSHOT)).blockIndexes]).toEqual([1]);
  expect(stub.requests.length).toBe(3);
});

test("a redirect is not followed, and said to be one", async () => {
  const { api, stub } = await serve({}, (_request, response) => {
    response.writeHead(307, { location: "http://127.0.0.1:1/" }).end();
  });
  const error = await failure(api.listSnapshotBlocks(SNAPSHOT));
  expect(error.message).toMatch(/redirect \(307\).*check --endpoint-url/);
  expect(stub.requests.length).toBe(1);
});

test("a name and password in the endpoint's URL are told to nobody", async () => {
  const endpointUrl = "http://user:sEcReT@127.0.0.1:1";
  const api = createEbsApi({ endpointUrl, region: "us-east-1" });
  closers.push(() => api.close());
  const error = await failure(api.listSnapshotBlocks(SNAPSHOT));
  expect(error.message).toContain("A name and password in it are not used");
  expect(error.message).not.toContain("sEcReT");
});

test("the life of tokens is by this machine's clock, also where that is wrong", async () => {
  const list = (clockMs: number): Answer => {
    const now = Date.now() + clockMs;
    return (request, response, body) => {
      response.setHeader("date", new Date(now).toUTCString());
      const expiry = now / 1000 + 600;
      json({ Blocks: [], VolumeSize: 1, ExpiryTime: expiry })(request, response, body);
    };
  };
  for (const clockMs of [-7_200_000, -1_000, 7_200_000]) {
    const { api } = await serve({}, list(clockMs));
    const { expiresAt } = await api.listSnapshotBlocks(SNAPSHOT);
    expect(Math.abs(expiresAt - Date.now() - 600_000)).toBeLessThan(10_000);
  }
});

test("a whole list in the order of writing is put in order, each block with its own token", async () => {
  const blocks = ["10", 2, "700", 0].map((BlockIndex) => ({
    BlockIndex,
    BlockToken: `T${BlockIndex}`,
  }));
  const { api } = await serve({}, json({ Blocks: blocks, VolumeSize: 1 }));
  const page = await api.listSnapshotBlocks(SNAPSHOT, { startingBlockIndex: 1 });
  expect([...page.blockIndexes]).toEqual([2, 10, 700]);
  expect(page.blockTokens).toEqual(["T2", "T10", "T700"]);
});

function entry(index: number): object {
  return { BlockIndex: index, BlockToken: "AA==" };
}

test("an empty list is one; a list that is null, missing or no list is refused, and not asked for again", async () => {
  const wrong = [null, undefined, {}, "", 0];
  const { api, stub } = await serve(
    {},
    json({ Blocks: [], VolumeSize: 1 }),
    ...wrong.map((Blocks) => json({ Blocks, VolumeSize: 1 })),
    ...wrong.map((ChangedBlocks) => json({ Blocks: [], ChangedBlocks, VolumeSize: 1 })),
  );
  expect((await api.listSnapshotBlocks(SNAPSHOT)).blockIndexes).toHaveLength(0);
  for (const _ of wrong) {
    const error = await failure(api.listSnapshotBlocks(SNAPSHOT));
    expect(error).toMatchObject({ errno: "EIO" });
    expect(error.message).toMatch(/: Blocks is missing or not a list/);
    expect(isMalformed(error)).toBe(true);
  }
  for (const _ of wrong) {
    const error = await failure(api.listChangedBlocks("snap-1", SNAPSHOT));
    expect(error.message).toMatch(/ChangedBlocks is missing or not a list/);
  }
  expect(stub.requests).toHaveLength(1 + 2 * wrong.length);
});

test("throttling in any words slows down, and each request is counted once", async () => {
  const throttled = exception("SlowDown", 503);
  const many = exception("TooManyRequestsException", 429);
  const { api, stub, meter } = await serve({}, block(DATA), throttled, many, block(DATA));
  await api.getSnapshotBlock(SNAPSHOT, 1, "AAAB", shared());
  await api.getSnapshotBlock(SNAPSHOT, 2, "AAAB", shared());
  expect(meter.read()).toMatchObject({ requests: 4, throttles: 2 });
  expect(stub.requests).toHaveLength(4);
});

test("changed blocks keep each side's token", async () => {
  const { api, stub } = await serve(
    {},
    json({
      ChangedBlocks: [
        { BlockIndex: 1, FirstBlockToken: "F" },
        { BlockIndex: 2, SecondBlockToken: "S" },
      ],
      VolumeSize: 1,
      ExpiryTime: 1.7e9,
      NextToken: "N",
    }),
  );
  const page = await api.listChangedBlocks("snap-1", "snap-2", { pageToken: "P" });
  expect(page.firstTokens).toEqual(["F", undefined]);
  expect(page.secondTokens).toEqual([undefined, "S"]);
  expect(page.nextToken).toBe("N");
  expect(stub.requests[0]).toBe(
    "GET /snapshots/snap-2/changedblocks?firstSnapshotId=snap-1&pageToken=P",
  );
});

test("put sends the block with its checksum; start and complete carry their parameters", async () => {
  const seen: { headers: Record<string, unknown>; body: Buffer }[] = [];
  const keep =
    (answer: Answer): Answer =>
    (request, response, body) => {
      seen.push({ headers: request.headers, body });
      answer(request, response, body);
    };
  const { api, meter } = await serve(
    {},
    keep(json({ SnapshotId: "snap-ff", Status: "pending", VolumeSize: "8", BlockSize: "x" }, 201)),
    keep(json({}, 201)),
    keep(json({ Status: "pending" }, 202)),
  );
  const started = await api.startSnapshot({
    volumeSizeGiB: 8,
    clientToken: "token",
    tags: [{ key: "k", value: "v" }],
    timeoutMinutes: 60,
  });
  expect(started).toMatchObject({
    snapshotId: "snap-ff",
    status: "pending",
    volumeSizeGiB: 8,
    parentSnapshotId: undefined,
  });
  const digest = await api.putSnapshotBlock("snap-ff", 2, DATA);
  expect(Buffer.from(digest)).toEqual(createHash("sha256").update(DATA).digest());
  expect(await api.completeSnapshot("snap-ff", 1, "sum")).toBe("pending");
  expect(JSON.parse(String(seen[0]?.body))).toEqual({
    VolumeSize: 8,
    ClientToken: "token",
    Tags: [{ Key: "k", Value: "v" }],
    Timeout: 60,
  });
  expect(Buffer.compare(seen[1]?.body as Buffer, DATA)).toBe(0);
  expect(seen[1]?.headers).toMatchObject({
    "x-amz-data-length": "524288",
    "x-amz-checksum": Buffer.from(digest).toString("base64"),
    "x-amz-checksum-algorithm": "SHA256",
  });
  expect(seen[2]?.headers).toMatchObject({
    "x-amz-changedblockscount": "1",
    "x-amz-checksum": "sum",
    "x-amz-checksum-aggregation-method": "LINEAR",
  });
  expect(meter.read().bytesPut).toBe(BLOCK_SIZE);
});
