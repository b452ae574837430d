import {
  CompleteSnapshotCommand,
  GetSnapshotBlockCommand,
  ListChangedBlocksCommand,
  ListSnapshotBlocksCommand,
  PutSnapshotBlockCommand,
  StartSnapshotCommand,
} from "@aws-sdk/client-ebs";
import { describe, expect, test } from "vitest";
import { BLOCK_SIZE } from "../../src/common/sizes.js";
import {
  blockOf,
  complete,
  contentOf,
  get,
  put,
  rig,
  sha256,
  snapshotOf,
  start,
  until,
} from "./rig.js";

const error = (name: string, reason?: string) =>
  expect.objectContaining(reason === undefined ? { name } : { name, Reason: reason });

describe("StartSnapshot", () => {
  test("answers with what was asked", async () => {
    const { client, endpoint } = await rig();
    const started = await client.send(
      new StartSnapshotCommand({
        VolumeSize: 8,
        Description: "a disk",
        Tags: [{ Key: "Name", Value: "x" }],
        Encrypted: true,
      }),
    );
    expect(started.SnapshotId).toMatch(/^snap-[0-9a-f]{17}$/);
    expect(started).toMatchObject({
      Status: "pending",
      VolumeSize: 8,
      BlockSize: BLOCK_SIZE,
      Description: "a disk",
      Tags: [{ Key: "Name", Value: "x" }],
    });
    expect(started.$metadata.httpStatusCode).toBe(201);
    expect(started.OwnerId).toMatch(/^\d{12}$/);
    expect(started.KmsKeyArn).toMatch(/^arn:aws:kms:/);
    expect(started.SseType).toBe("sse-kms");
    expect(Math.abs(started.StartTime!.getTime() - Date.now())).toBeLessThan(60_000);
    expect(endpoint.stats().snapshots).toHaveLength(1);
  });

  test("refuses what the service refuses", async () => {
    const { client } = await rig({ maxPending: 1 });
    const parent = await snapshotOf(client, {}, { VolumeSize: 2 });
    const from = (input: object) =>
      client.send(new StartSnapshotCommand({ VolumeSize: 2, ...input }));
    const refused: [object, string, string?][] = [
      [{ VolumeSize: 0 }, "ValidationException", "INVALID_VOLUME_SIZE"],
      [{ VolumeSize: 65_537 }, "ValidationException", "INVALID_VOLUME_SIZE"],
      [{ VolumeSize: 1, ParentSnapshotId: parent }, "ValidationException", "INVALID_VOLUME_SIZE"],
      [
        { ParentSnapshotId: parent, Encrypted: true },
        "ValidationException",
        "INVALID_PARAMETER_VALUE",
      ],
      [{ ParentSnapshotId: "snap-123" }, "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND"],
      [{ ParentSnapshotId: "vol-123" }, "ValidationException", "INVALID_SNAPSHOT_ID"],
      [{ Timeout: 9 }, "ValidationException", "INVALID_PARAMETER_VALUE"],
      [{ Description: "x".repeat(256) }, "ValidationException", "INVALID_PARAMETER_VALUE"],
      [{ Description: "" }, "ValidationException", "INVALID_PARAMETER_VALUE"],
      [{ ParentSnapshotId: "" }, "ValidationException", "INVALID_SNAPSHOT_ID"],
      [{ Tags: [{ Key: "aws:x", Value: "" }] }, "ValidationException", "INVALID_TAG"],
      [{ Encrypted: true, KmsKeyArn: "mine" }, "ValidationException", "INVALID_CUSTOMER_KEY"],
    ];
    for (const [input, name, reason] of refused) {
      await expect(from(input), JSON.stringify(input)).rejects.toEqual(error(name, reason));
    }
    const pending = await start(client, { VolumeSize: 2 });
    await expect(from({})).rejects.toEqual(error("ConcurrentLimitExceededException"));
    await expect(from({ ParentSnapshotId: pending })).rejects.toEqual(
      error("ValidationException", "INVALID_SNAPSHOT_ID"),
    );
  });

  test("a client token names one snapshot, however the request is written", async () => {
    const { client } = await rig();
    const Tags = [
      { Key: "b", Value: "2" },
      { Key: "a", Value: "" },
    ];
    const asked = { ClientToken: "once", VolumeSize: 3, Tags };
    const id = await start(client, asked);
    for (const same of [
      {},
      { Tags: Tags.toReversed() },
      { Tags: [{ Key: "a" }, Tags[0]!] },
      { Timeout: 60 },
      { Encrypted: false },
    ]) {
      expect(await start(client, { ...asked, ...same })).toBe(id);
    }
    for (const other of [
      { VolumeSize: 4 },
      { Tags: Tags.slice(1) },
      { Tags: [Tags[0]!, { Key: "a", Value: "1" }] },
      { Timeout: 61 },
      { Encrypted: true },
      { Description: "x" },
    ]) {
      const again = start(client, { ...asked, ...other });
      await expect(again, JSON.stringify(other)).rejects.toEqual(error("ConflictException"));
    }
  });

  test("a child of an encrypted parent has its key", async () => {
    const { client } = await rig();
    const KmsKeyArn = "arn:aws:kms:us-east-1:123456789012:key/abc";
    const parent = await snapshotOf(client, {}, { Encrypted: true, KmsKeyArn });
    const child = await client.send(
      new StartSnapshotCommand({ VolumeSize: 1, ParentSnapshotId: parent }),
    );
    expect(child.KmsKeyArn).toBe(KmsKeyArn);
  });
});

describe("PutSnapshotBlock", () => {
  test("refuses wrong data and keeps the good", async () => {
    const { client } = await rig();
    const id = await start(client);
    const data = blockOf(1);
    const good = {
      SnapshotId: id,
      BlockIndex: 5,
      BlockData: data,
      DataLength: BLOCK_SIZE,
      Checksum: sha256(data).toString("base64"),
      ChecksumAlgorithm: "SHA256" as const,
    };
    const answer = await client.send(new PutSnapshotBlockCommand(good));
    expect(answer).toMatchObject({ Checksum: good.Checksum, ChecksumAlgorithm: "SHA256" });
    expect(answer.$metadata.httpStatusCode).toBe(201);
    const short = data.subarray(1);
    const wrong: [object, string][] = [
      [{ Checksum: sha256(short).toString("base64") }, "INVALID_PARAMETER_VALUE"],
      [{ BlockIndex: 2048 }, "INVALID_BLOCK"],
      [{ BlockData: short, Checksum: sha256(short).toString("base64") }, "INVALID_BLOCK"],
      [{ BlockData: Buffer.concat([data, data]) }, "INVALID_BLOCK"],
      [{ DataLength: 4096 }, "INVALID_PARAMETER_VALUE"],
      [{ ChecksumAlgorithm: "MD5" }, "INVALID_PARAMETER_VALUE"],
      [{ Progress: 101 }, "INVALID_PARAMETER_VALUE"],
    ];
    for (const [change, reason] of wrong) {
      await expect(
        client.send(new PutSnapshotBlockCommand({ ...good, ...change })),
        JSON.stringify(Object.keys(change)),
      ).rejects.toEqual(error("ValidationException", reason));
    }
    await expect(put(client, "snap-1", 0, data)).rejects.toEqual(
      error("ResourceNotFoundException", "SNAPSHOT_NOT_FOUND"),
    );
    await complete(client, id, 1);
    await expect(put(client, id, 1, data)).rejects.toEqual(
      error("ValidationException", "INVALID_SNAPSHOT_ID"),
    );
  });

  test("putting again overwrites and counts once", async () => {
    const { client } = await rig();
    const id = await start(client);
    for (let content = 0; content < 5; content++) await put(client, id, 7, blockOf(content));
    await complete(client, id, 1);
    const { Blocks } = await client.send(new ListSnapshotBlocksCommand({ SnapshotId: id }));
    expect(contentOf(await get(client, id, 7, Blocks![0]!.BlockToken!))).toBe(4);
  });
});

describe("CompleteSnapshot", () => {
  test("verifies count and LINEAR checksum, and may be repeated", async () => {
    const { client } = await rig();
    const id = await start(client);
    for (const index of [9, 3, 1000]) await put(client, id, index, blockOf(index));
    const linear = (order: number[]) =>
      sha256(Buffer.concat(order.map((index) => sha256(blockOf(index))))).toString("base64");
    const send = (ChangedBlocksCount: number, Checksum: string) =>
      client.send(
        new CompleteSnapshotCommand({
          SnapshotId: id,
          ChangedBlocksCount,
          Checksum,
          ChecksumAlgorithm: "SHA256",
          ChecksumAggregationMethod: "LINEAR",
        }),
      );
    const refusal = error("ValidationException", "INVALID_PARAMETER_VALUE");
    await expect(send(2, linear([3, 9, 1000]))).rejects.toEqual(refusal);
    await expect(send(3, linear([9, 3, 1000]))).rejects.toEqual(refusal);
    const done = await send(3, linear([3, 9, 1000]));
    expect(done).toMatchObject({ Status: "pending" });
    expect(done.$metadata.httpStatusCode).toBe(202);
    expect(await send(3, linear([3, 9, 1000]))).toMatchObject({ Status: "completed" });
    await expect(send(4, linear([3, 9, 1000]))).rejects.toEqual(refusal);
  });

  test("says completed at once where that was asked for", async () => {
    const { client } = await rig({ completionDelayMs: 0 });
    const id = await start(client);
    expect((await complete(client, id, 0)).Status).toBe("completed");
  });

  test("stays pending for the completion delay, and cannot be read meanwhile", async () => {
    const { client, endpoint } = await rig({ completionDelayMs: 300 });
    const id = await start(client);
    await put(client, id, 0, blockOf(1));
    expect((await complete(client, id, 1)).Status).toBe("pending");
    const list = () => client.send(new ListSnapshotBlocksCommand({ SnapshotId: id }));
    const refusal = error("ValidationException", "INVALID_SNAPSHOT_ID");
    await expect(list()).rejects.toEqual(refusal);
    await expect(put(client, id, 1, blockOf(1))).rejects.toEqual(refusal);
    await until(() => endpoint.stats().snapshots[0]!.status === "completed");
    expect((await list()).Blocks).toHaveLength(1);
  });

  test("a snapshot nobody writes goes to error after its Timeout", async () => {
    const { client, endpoint } = await rig({ minuteMs: 10 });
    const id = await start(client, { Timeout: 10 });
    await until(() => endpoint.stats().snapshots[0]!.status === "error");
    const refusal = error("ValidationException", "INVALID_SNAPSHOT_ID");
    await expect(put(client, id, 1, blockOf(1))).rejects.toEqual(refusal);
    await expect(complete(client, id, 0)).rejects.toEqual(refusal);
  });
});

describe("reading", () => {
  test("a child shows its own blocks over its parent's", async () => {
    const { client, endpoint } = await rig();
    const parent = await snapshotOf(client, { 1: 11, 2: 12, 9: 19 });
    const child = await snapshotOf(
      client,
      { 2: 22, 3: 23 },
      { ParentSnapshotId: parent, VolumeSize: 2 },
    );
    const list = await client.send(new ListSnapshotBlocksCommand({ SnapshotId: child }));
    expect(list.VolumeSize).toBe(2);
    expect(list.BlockSize).toBe(BLOCK_SIZE);
    expect(list.NextToken ?? undefined).toBeUndefined();
    const seen = new Map<number, number>();
    for (const { BlockIndex, BlockToken } of list.Blocks!) {
      const data = await get(client, child, BlockIndex!, BlockToken!);
      seen.set(BlockIndex!, contentOf(data));
    }
    expect([...seen]).toEqual([
      [1, 11],
      [2, 22],
      [3, 23],
      [9, 19],
    ]);
    // Removing the parent takes nothing from the child.
    endpoint.removeSnapshot(parent);
    await expect(
      client.send(new ListSnapshotBlocksCommand({ SnapshotId: parent })),
    ).rejects.toEqual(error("ResourceNotFoundException", "SNAPSHOT_NOT_FOUND"));
    expect(contentOf(await get(client, child, 9, list.Blocks![3]!.BlockToken!))).toBe(19);
  });

  test("ListChangedBlocks: tokens on the side that has the block", async () => {
    const { client } = await rig();
    const root = await snapshotOf(client, { 1: 1, 2: 2 });
    const left = await snapshotOf(client, { 2: 5, 4: 6 }, { ParentSnapshotId: root });
    const right = await snapshotOf(client, { 3: 7 }, { ParentSnapshotId: root });
    const stranger = await snapshotOf(client, { 1: 1 });
    const changed = (FirstSnapshotId: string, SecondSnapshotId: string) =>
      client.send(new ListChangedBlocksCommand({ FirstSnapshotId, SecondSnapshotId }));
    const { ChangedBlocks } = await changed(left, right);
    const sides = ChangedBlocks!.map((block) => [
      block.BlockIndex,
      block.FirstBlockToken !== undefined,
      block.SecondBlockToken !== undefined,
    ]);
    expect(sides).toEqual([
      [2, true, true],
      [3, false, true],
      [4, true, false],
    ]);
    expect(contentOf(await get(client, left, 2, ChangedBlocks![0]!.FirstBlockToken!))).toBe(5);
    expect(contentOf(await get(client, right, 2, ChangedBlocks![0]!.SecondBlockToken!))).toBe(2);
    expect((await changed(right, right)).ChangedBlocks).toEqual([]);
    const alone = client.send(new ListChangedBlocksCommand({ SecondSnapshotId: left }));
    await expect(alone).rejects.toEqual(error("ValidationException", "INVALID_PARAMETER_VALUE"));
    await expect(changed(stranger, right)).rejects.toEqual(
      error("ValidationException", "UNRELATED_SNAPSHOTS"),
    );
  });

  test("a token is good for its snapshot and block only, until it expires", async () => {
    const { client } = await rig({ blockTokenLifeMs: 400, pageTokenLifeMs: 400 });
    const blocks = Object.fromEntries(Array.from({ length: 101 }, (_, i) => [i, i]));
    const id = await snapshotOf(client, blocks);
    const child = await snapshotOf(client, {}, { ParentSnapshotId: id });
    const list = async (SnapshotId: string, NextToken?: string) =>
      client.send(new ListSnapshotBlocksCommand({ SnapshotId, MaxResults: 100, NextToken }));
    const refusal = error("ValidationException", "INVALID_BLOCK_TOKEN");
    const { Blocks, NextToken, ExpiryTime } = await list(id);
    const token = Blocks![1]!.BlockToken!;
    expect(token).toMatch(/^[A-Za-z0-9+/=]{1,256}$/);
    await expect(get(client, id, 2, token)).rejects.toEqual(refusal);
    await expect(get(client, child, 1, token)).rejects.toEqual(refusal);
    const altered = token.replace(/.$/, (last) => (last === "x" ? "y" : "x"));
    await expect(get(client, id, 1, altered)).rejects.toEqual(refusal);
    await expect(get(client, id, 1, "AAAA")).rejects.toEqual(refusal);
    await expect(list(child, NextToken)).rejects.toEqual(
      error("ValidationException", "INVALID_PAGE_TOKEN"),
    );
    const other = NextToken!.startsWith("B") ? "C" : "B";
    await expect(list(id, `${other}${NextToken!.slice(1)}`)).rejects.toEqual(
      error("ValidationException", "INVALID_PAGE_TOKEN"),
    );
    await until(() => Date.now() > ExpiryTime!.getTime());
    await expect(get(client, id, 1, token)).rejects.toEqual(refusal);
    await expect(list(id, NextToken)).rejects.toEqual(
      error("ValidationException", "INVALID_PAGE_TOKEN"),
    );
  });

  test("parameters out of range", async () => {
    const { client, endpoint } = await rig();
    const id = await snapshotOf(client, { 1: 1 });
    const { Blocks } = await client.send(new ListSnapshotBlocksCommand({ SnapshotId: id }));
    await expect(
      client.send(
        new GetSnapshotBlockCommand({
          SnapshotId: id,
          BlockIndex: 9999,
          BlockToken: Blocks![0]!.BlockToken!,
        }),
      ),
    ).rejects.toEqual(error("ValidationException", "INVALID_BLOCK"));
    for (const query of [
      "maxResults=0",
      "maxResults=10001",
      "maxResults=x",
      "startingBlockIndex=-1",
    ]) {
      const answer = await fetch(`${endpoint.url}/snapshots/${id}/blocks?${query}`);
      expect(answer.status).toBe(400);
      expect(answer.headers.get("x-amzn-errortype")).toBe("ValidationException");
      expect(await answer.json()).toMatchObject({
        __type: "ValidationException",
        Reason: "INVALID_PARAMETER_VALUE",
      });
    }
    expect((await fetch(`${endpoint.url}/nothing`)).status).toBe(404);
  });

  test("what is percent-encoded in a path means the same plain", async () => {
    const { client, endpoint } = await rig();
    const id = await snapshotOf(client, { 1: 1 });
    const status = async (path: string) => (await fetch(`${endpoint.url}${path}`)).status;
    expect(await status(`/snapshots/${id.replace("-", "%2D")}/blocks`)).toBe(200);
    expect(await status(`/%73napshots/%73${id.slice(1)}/bl%6Fcks`)).toBe(200);
    expect(await status(`/snapshots/${id}%2Fblocks`)).toBe(404);
    expect(await status(`/snapshots/${id}%2F/blocks`)).toBe(400);
    expect(await status(`/snapshots/${id}%/blocks`)).toBe(400);
  });
});
