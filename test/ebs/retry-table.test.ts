/** Orders every row of the retry table at a server, for each operation that it is for. */
import { randomBytes } from "node:crypto";
import { afterEach, expect, test } from "vitest";
import { BLOCK_SIZE } from "../../src/common/sizes.js";
import type { EbsApi } from "../../src/ebs/api.js";
import { createEbsApi } from "../../src/ebs/create.js";
import { EbsError } from "../../src/ebs/errors.js";
import { Meter, OPERATIONS, type Operation } from "../../src/ebs/meter.js";
import { RETRY_TABLE } from "../../src/ebs/retry-table.js";
import { type Answer, block, exception, json, startStub } from "./stub-service.js";

process.env.AWS_ACCESS_KEY_ID = "test";
process.env.AWS_SECRET_ACCESS_KEY = "test";

const ID = "snap-0123456789abcdef0";
const DATA = randomBytes(BLOCK_SIZE);
const closers: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

const SUCCESS: Record<Operation, Answer> = {
  ListSnapshotBlocks: json({ Blocks: [], VolumeSize: 1, ExpiryTime: 2e9 }),
  ListChangedBlocks: json({ ChangedBlocks: [], VolumeSize: 1, ExpiryTime: 2e9 }),
  GetSnapshotBlock: block(DATA),
  StartSnapshot: json({ SnapshotId: ID, Status: "pending", VolumeSize: 1 }, 201),
  PutSnapshotBlock: json({}, 201),
  CompleteSnapshot: json({ Status: "pending" }, 202),
};

const CALL: Record<Operation, (api: EbsApi) => Promise<unknown>> = {
  ListSnapshotBlocks: (api) => api.listSnapshotBlocks(ID),
  ListChangedBlocks: (api) => api.listChangedBlocks("snap-1", ID),
  GetSnapshotBlock: (api) => api.getSnapshotBlock(ID, 1, "AAAA", Buffer.alloc(BLOCK_SIZE)),
  StartSnapshot: (api) => api.startSnapshot({ volumeSizeGiB: 1, clientToken: "t" }),
  PutSnapshotBlock: (api) => api.putSnapshotBlock(ID, 1, DATA),
  CompleteSnapshot: (api) => api.completeSnapshot(ID, 1),
};

/** Of each row one error for each of its names, reasons and statuses, for each of its operations. */
const CASES = RETRY_TABLE.flatMap((row) =>
  (row.operations ?? OPERATIONS).flatMap((operation) =>
    (row.names ?? ["SomeException"]).flatMap((name) =>
      (row.reasons ?? [undefined]).flatMap((reason) => {
        const of = { row, operation, name, reason };
        if (row.statuses === undefined) return [{ ...of, status: 400 }];
        const [from, to] = row.statuses;
        return [...new Set([from, Math.min(from + 3, to)])].map((status) => ({ ...of, status }));
      }),
    ),
  ),
);

/** A row further up decides; these are the ones that do not come to their own. */
function isOrdered({ row, operation, name, reason, status }: (typeof CASES)[number]): boolean {
  const said = row.words === undefined ? "it says so" : "Failed to read block data";
  const first = RETRY_TABLE.find(
    (other) =>
      (other.names?.includes(name) ?? true) &&
      (other.reasons?.includes(reason ?? "") ?? true) &&
      (other.operations?.includes(operation) ?? true) &&
      (other.statuses === undefined ||
        (status >= other.statuses[0] && status <= other.statuses[1])) &&
      (other.words?.test(said) ?? true),
  );
  return first === row;
}

async function serve(...answers: Answer[]) {
  const stub = await startStub(...answers);
  const meter = new Meter();
  const api = createEbsApi({ endpointUrl: stub.url, region: "us-east-1", threads: 0, meter });
  closers.push(() => api.close(), stub.close);
  return { api, stub, meter };
}

test("every row decides about something", () => {
  for (const row of RETRY_TABLE) {
    expect(CASES.some((one) => one.row === row && isOrdered(one))).toBe(true);
  }
});

test.each(OPERATIONS)("what the table says is done: %s", async (operation) => {
  for (const one of CASES.filter((each) => each.operation === operation && isOrdered(each))) {
    const { row, name, reason, status } = one;
    const Message = row.words === undefined ? "it says so" : "Failed to read block data";
    const error = exception(name, status, { Message, ...(reason && { Reason: reason }) });
    const { api, stub, meter } = await serve(error, SUCCESS[operation]);
    const result = await CALL[operation](api).catch((caught: unknown) => caught);
    const what = `${name} ${reason ?? ""} ${status}`;
    const isPending = operation === "PutSnapshotBlock" || operation === "CompleteSnapshot";
    // Of a snapshot that this process did not start, nothing more is to be waited for.
    const isFinal = row.retry === "fatal" || (row.retry === "not-yet" && isPending);
    if (isFinal) {
      expect(result, what).toBeInstanceOf(EbsError);
      expect((result as EbsError).errno, what).toBe(row.errno);
      expect(stub.requests.length, what).toBe(1);
    } else {
      expect(result, what).not.toBeInstanceOf(Error);
      expect(stub.requests.length, what).toBe(2);
    }
    expect(meter.read().throttles, what).toBe(row.retry === "throttled" ? 1 : 0);
    for (const close of closers.splice(0)) await close();
  }
});

test.each(["PutSnapshotBlock", "CompleteSnapshot"] as const)(
  "a snapshot that was started a moment ago is waited for: %s",
  async (operation) => {
    const gone = exception("ResourceNotFoundException", 404, { Reason: "SNAPSHOT_NOT_FOUND" });
    const { api, stub } = await serve(SUCCESS.StartSnapshot, gone, gone, gone, SUCCESS[operation]);
    await CALL.StartSnapshot(api);
    await CALL[operation](api);
    expect(stub.requests.length).toBe(5);
  },
);

test("a snapshot that was started long ago is gone at once", async () => {
  const gone = exception("ResourceNotFoundException", 404, { Reason: "SNAPSHOT_NOT_FOUND" });
  const StartTime = Date.now() / 1000 - 500;
  const old = json({ SnapshotId: ID, Status: "pending", VolumeSize: 1, StartTime }, 201);
  const { api, stub } = await serve(old, gone);
  await CALL.StartSnapshot(api);
  await expect(CALL.PutSnapshotBlock(api)).rejects.toMatchObject({ errno: "ESTALE" });
  expect(stub.requests.length).toBe(2);
});

test("a list of a snapshot that does not exist ends after a few tries", async () => {
  const { api, stub } = await serve(exception("ResourceNotFoundException", 404));
  await expect(CALL.ListSnapshotBlocks(api)).rejects.toMatchObject({ errno: "ESTALE" });
  expect(stub.requests.length).toBe(5);
});

test("when the time is up, the sentence tells what the try before was answered", async () => {
  const stub = await startStub(exception("InternalServerException", 500), () => {});
  const options = { endpointUrl: stub.url, region: "us-east-1", threads: 0, ioTimeoutMs: 700 };
  const api = createEbsApi(options);
  closers.push(() => api.close(), stub.close);
  const error = await CALL.GetSnapshotBlock(api).catch((caught: unknown) => caught);
  expect(error).toMatchObject({ errno: "ETIMEDOUT" });
  expect((error as Error).message).toMatch(/InternalServerException/);
});
