/** Each fault of the table, ordered for each operation that it can strike, as a client sees it. */
import {
  type EBSClient,
  GetSnapshotBlockCommand,
  ListChangedBlocksCommand,
  ListSnapshotBlocksCommand,
  StartSnapshotCommand,
} from "@aws-sdk/client-ebs";
import { describe, expect, test } from "vitest";
import { OPERATIONS, type Operation } from "../../src/server/call.js";
import { canStrike, FAULTS, type FaultAction } from "../../src/server/fault-table.js";
import { parseFaultText } from "../../src/server/fault-text.js";
import { ServiceError } from "../../src/server/service-error.js";
import { blockOf, clientOf, complete, put, rig, snapshotOf, start, until } from "./rig.js";

async function faultRig() {
  const { client, endpoint } = await rig();
  const id = await snapshotOf(client, { 0: 1, 1: 2 });
  const list = (MaxResults = 100, NextToken?: string) =>
    client.send(new ListSnapshotBlocksCommand({ SnapshotId: id, MaxResults, NextToken }));
  const { Blocks } = await list();
  const order = (...texts: string[]) => {
    endpoint.faults.clear();
    endpoint.faults.add(...texts.map(parseFaultText));
  };
  const call = async (operation: Operation): Promise<unknown> => {
    switch (operation) {
      case "StartSnapshot":
        return start(client);
      case "PutSnapshotBlock":
        return put(client, await start(client), 0, blockOf(1));
      case "CompleteSnapshot":
        return complete(client, await start(client), 0);
      case "ListSnapshotBlocks":
        return list();
      case "ListChangedBlocks":
        return client.send(
          new ListChangedBlocksCommand({ FirstSnapshotId: id, SecondSnapshotId: id }),
        );
      case "GetSnapshotBlock":
        return client.send(
          new GetSnapshotBlockCommand({
            SnapshotId: id,
            BlockIndex: 0,
            BlockToken: Blocks![0]!.BlockToken!,
          }),
        );
    }
  };
  return { client, endpoint, id, list, order, call };
}

/** Those that respond with an exception, each with the operations that it can strike. */
const errors = (Object.keys(FAULTS) as FaultAction[])
  .filter((action) => FAULTS[action].error !== undefined)
  .map((action) => [action, OPERATIONS.filter((one) => canStrike(action, one))] as const);

describe("an exception, to each operation that can get it, and only while ordered", () => {
  test("is what most of the table is", () => expect(errors.length).toBeGreaterThan(20));

  test.each(errors)("%s", async (action, operations) => {
    const { order, call, endpoint } = await faultRig();
    const error = FAULTS[action].error!;
    const { name, reason, status } = new ServiceError(error.name, "", error.reason, error.status);
    // A rate strikes once its burst is used up.
    const words = action === "rate" ? "=0.0001,burst=1,skip=1" : "";
    for (const operation of operations) {
      order(`${action}${words},operations=${operation},count=1`);
      if (action === "rate") await call(operation).then(() => call(operation));
      await expect(call(operation), operation).rejects.toMatchObject({
        name,
        $metadata: { httpStatusCode: status },
        ...(reason !== undefined && { Reason: reason }),
      });
      await call(operation);
      expect(endpoint.faults.list()).toMatchObject([{ hit: 1 }]);
    }
  });
});

test("what the words change, and a reason that does not follow to another exception", async () => {
  const { order, list } = await faultRig();
  order("request-timeout=400");
  await expect(list()).rejects.toMatchObject({
    name: "RequestTimeoutException",
    $metadata: { httpStatusCode: 400 },
  });
  order("throttle-snapshot,name=SlowDown,status=503");
  const error = await list().catch((one: unknown) => one);
  expect(error).toMatchObject({ name: "SlowDown", $metadata: { httpStatusCode: 503 } });
  expect(error).not.toHaveProperty("Reason");
});

describe("eventual consistency", () => {
  test("the first requests of each snapshot do not find it", async () => {
    const { client, order } = await faultRig();
    order("eventual-start=2");
    const [one, other] = [await start(client), await start(client)];
    const unknown = { name: "ResourceNotFoundException", Reason: "SNAPSHOT_NOT_FOUND" };
    for (const id of [one, other]) {
      await expect(put(client, id, 0, blockOf(1))).rejects.toMatchObject(unknown);
      await expect(complete(client, id, 0)).rejects.toMatchObject(unknown);
      await put(client, id, 0, blockOf(1));
      await complete(client, id, 1);
    }
    // Once completed it is not a matter of being too early.
    await expect(put(client, one, 0, blockOf(1))).rejects.toMatchObject({
      name: "ValidationException",
    });
  });

  test("for a time after the start", async () => {
    const { client, order } = await faultRig();
    order("eventual-start,ms=800");
    const began = Date.now();
    const id = await start(client);
    let tries = 0;
    await until(() => {
      tries += 1;
      return put(client, id, 0, blockOf(1)).then(
        () => true,
        () => false,
      );
    });
    expect(Date.now() - began).toBeGreaterThanOrEqual(795);
    expect(tries).toBeGreaterThan(1);
    await put(client, id, 0, blockOf(1));
  });

  test("lists do not find what was completed just now", async () => {
    const { client, id, list, order } = await faultRig();
    order("eventual-complete,requests=1");
    await expect(list()).rejects.toMatchObject({ message: `The snapshot '${id}' does not exist.` });
    await list();
    const child = await snapshotOf(client, { 5: 1 }, { ParentSnapshotId: id });
    const changes = () =>
      client.send(new ListChangedBlocksCommand({ FirstSnapshotId: id, SecondSnapshotId: child }));
    await expect(changes()).rejects.toMatchObject({ name: "ResourceNotFoundException" });
    expect((await changes()).ChangedBlocks).toHaveLength(1);
    order("eventual-complete,ms=1");
    await until(() => list().then(Boolean, () => false));
  });
});

describe("a rate", () => {
  test("of each snapshot says so", async () => {
    const { client, id, list, order } = await faultRig();
    const other = await snapshotOf(client, { 0: 1 });
    order("rate=0.0001,burst=1,perSnapshot");
    await list();
    const refused = { name: "RequestThrottledException", Reason: "RESOURCE_LEVEL_THROTTLE" };
    await expect(list()).rejects.toMatchObject(refused);
    await client.send(new ListSnapshotBlocksCommand({ SnapshotId: other }));
    expect(id).not.toBe(other);
  });
});

describe("lists that lead nowhere", () => {
  test("empty pages bring the same token again, without end", async () => {
    const { list, order } = await faultRig();
    order("empty-pages");
    const { Blocks, NextToken } = await list();
    expect(Blocks).toEqual([]);
    expect(NextToken).toMatch(/^[A-Za-z0-9+/=]+$/);
    for (let i = 0; i < 20; i += 1) {
      expect(await list(100, NextToken)).toMatchObject({ Blocks: [], NextToken });
    }
    order();
    expect((await list(100, NextToken)).Blocks).toHaveLength(2);
  });

  test("null in place of a list", async () => {
    const { endpoint, id, order } = await faultRig();
    order("null-list");
    const raw = async (path: string) =>
      (await fetch(`${endpoint.url}/snapshots/${id}/${path}`)).json();
    expect(await raw("blocks")).toMatchObject({ Blocks: null, NextToken: null });
    const changes = await raw(`changedblocks?firstSnapshotId=${id}`);
    expect(changes).toMatchObject({ ChangedBlocks: null, NextToken: null });
  });
});

describe("a start that is not as it says", () => {
  const begin = (client: EBSClient, Encrypted = false) =>
    client.send(new StartSnapshotCommand({ VolumeSize: 1, Encrypted }));

  test("completed, though it is pending", async () => {
    const { client, endpoint, order } = await faultRig();
    order("completed-start=1");
    const { Status, SnapshotId } = await begin(client);
    expect(Status).toBe("completed");
    const { snapshots } = endpoint.stats();
    expect(snapshots.find((one) => one.snapshotId === SnapshotId)?.status).toBe("pending");
    expect((await begin(client)).Status).toBe("pending");
  });

  test("not encrypted, though that was asked for", async () => {
    const { client, order } = await faultRig();
    order("unencrypted-start");
    const started = await begin(client, true);
    expect(started).not.toHaveProperty("KmsKeyArn");
    expect(started.SseType).toBe("none");
  });
});

describe("a clock that is wrong", () => {
  const credentials = { accessKeyId: "AKIDEXAMPLE", secretAccessKey: "s3cr3t/+=" };

  test.each([
    ["clock-skew", 10, {}, /^Signature expired: /],
    ["clock-skew=-30", -30, { credentials }, /^Signature not yet current: /],
  ])("%s refuses what is signed now, and tells its time", async (text, minutes, keys, words) => {
    const { endpoint } = await rig(keys);
    endpoint.faults.add(parseFaultText(text));
    const refused = clientOf(endpoint.url, credentials);
    await expect(start(refused)).rejects.toMatchObject({
      name: "InvalidSignatureException",
      message: expect.stringMatching(words),
      $metadata: { httpStatusCode: 403 },
    });
    // The SDK takes the time from the response: its second attempt is accepted.
    const corrected = clientOf(endpoint.url, credentials, 2);
    const started = await corrected.send(new StartSnapshotCommand({ VolumeSize: 1 }));
    const off = started.StartTime!.getTime() - Date.now() - minutes * 60_000;
    expect(Math.abs(off)).toBeLessThan(5_000);
    const response = await fetch(`${endpoint.url}/snapshots/snap-1/blocks`);
    const date = Date.parse(response.headers.get("date")!) - Date.now() - minutes * 60_000;
    expect(Math.abs(date)).toBeLessThan(5_000);
  });

  test("by less than five minutes is nothing to a signature", async () => {
    const { client, endpoint, id, list } = await faultRig();
    endpoint.faults.add(parseFaultText("clock-skew=4"));
    expect((await list()).ExpiryTime!.getTime()).toBeGreaterThan(Date.now() + 7 * 24 * 3600_000);
    await client.send(new ListSnapshotBlocksCommand({ SnapshotId: id }));
  });

  test("under another name", async () => {
    const { endpoint, list } = await faultRig();
    endpoint.faults.add(parseFaultText("clock-skew=20,name=RequestExpired"));
    await expect(list()).rejects.toMatchObject({
      name: "RequestExpired",
      $metadata: { httpStatusCode: 400 },
    });
  });
});

describe("faults in the words of a command line", () => {
  test.each([
    ["reset", { action: "reset" }],
    ["unreadable=3", { action: "unreadable", count: 3 }],
    ["eventual-start=5,ms=20", { action: "eventual-start", requests: 5, ms: 20 }],
    ["latency=0.5,jitterMs=2", { action: "latency", ms: 0.5, jitterMs: 2 }],
    ["clock-skew=-7.5", { action: "clock-skew", minutes: -7.5 }],
    ["cut=9,clean", { action: "cut", bytes: 9, clean: true }],
    [
      "error=SlowDown,status=503,operations=GetSnapshotBlock+PutSnapshotBlock,blocks=0-9",
      {
        action: "error",
        name: "SlowDown",
        status: 503,
        operations: ["GetSnapshotBlock", "PutSnapshotBlock"],
        blocks: [0, 9],
      },
    ],
    ["hang,snapshots=snap-1+snap-2", { action: "hang", snapshots: ["snap-1", "snap-2"] }],
  ])("%s", (text, rule) => {
    expect(parseFaultText(text)).toEqual(rule);
  });

  test.each([
    ["", /action must be one of latency, rate/],
    ["toString", /action must be one of/],
    ["unreadble=3", /action must be one of/],
    ["unreadable=3,count=4", /gives count twice/],
    ["unreadable=some", /count must be a whole number/],
    ["unreadable,ms=4", /ms goes with latency, eventual-start, eventual-complete, not with unread/],
    ["unreadable,operations=GetSnapshotBlock", /cannot strike GetSnapshotBlock/],
    ["error,blocks=5", /a first and a last block index/],
    ["error,prob=1", /"prob" is not a word/],
    ["clock-skew=1000000", /minutes is a number from/],
    ["rate=5,perSnapshot=maybe", /perSnapshot is true or false/],
    ["latency", /latency needs ms/],
  ])("%s is refused", (text, sentence) => {
    expect(() => parseFaultText(text)).toThrow(sentence);
  });
});
