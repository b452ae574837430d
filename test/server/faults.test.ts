import { ListSnapshotBlocksCommand } from "@aws-sdk/client-ebs";
import { expect, test } from "vitest";
import { BLOCK_SIZE } from "../../src/common/sizes.js";
import { type FaultRule, parseFaultRules } from "../../src/server/fault-rule.js";
import { Faults } from "../../src/server/faults.js";
import { blockOf, complete, contentOf, get, put, rig, snapshotOf, start, until } from "./rig.js";

async function readRig() {
  const { client, endpoint } = await rig();
  const id = await snapshotOf(client, { 0: 1, 1: 2 });
  const list = () => client.send(new ListSnapshotBlocksCommand({ SnapshotId: id }));
  const { Blocks } = await list();
  const read = (block = 0) => get(client, id, block, Blocks![block]!.BlockToken!);
  const order = (rule: FaultRule) => {
    endpoint.faults.clear();
    endpoint.faults.add(rule);
  };
  const path = (block = 0) =>
    `${endpoint.url}/snapshots/${id}/blocks/${block}?blockToken=${encodeURIComponent(Blocks![block]!.BlockToken!)}`;
  return { client, endpoint, id, list, read, order, path };
}

test("errors, throttling and expired tokens", async () => {
  const { read, order, list } = await readRig();
  order({ action: "error", operations: ["GetSnapshotBlock"], count: 1, skip: 1 });
  expect(contentOf(await read())).toBe(1);
  await expect(read()).rejects.toMatchObject({
    name: "InternalServerException",
    $metadata: { httpStatusCode: 500 },
  });
  expect(contentOf(await read())).toBe(1);
  order({ action: "error", name: "ThrottlingException", status: 429, blocks: [1, 5] });
  expect(contentOf(await read(0))).toBe(1);
  await expect(read(1)).rejects.toMatchObject({
    name: "ThrottlingException",
    $metadata: { httpStatusCode: 429 },
  });
  order({ action: "expired-token" });
  await expect(read()).rejects.toMatchObject({ Reason: "INVALID_BLOCK_TOKEN" });
  order({ action: "rate", perSecond: 0.001, burst: 2 });
  await list();
  await read();
  await expect(list()).rejects.toMatchObject({
    name: "RequestThrottledException",
    Reason: "ACCOUNT_THROTTLED",
  });
});

test("bodies that are cut, corrupted or given a wrong checksum", async () => {
  const { read, order, path, endpoint } = await readRig();
  const honest = await fetch(path()).then((answer) => answer.headers.get("x-amz-checksum"));
  order({ action: "cut", bytes: 1000 });
  const cut = await fetch(path());
  expect(cut.headers.get("content-length")).toBe(String(BLOCK_SIZE));
  await expect(cut.arrayBuffer()).rejects.toThrow();
  order({ action: "cut", bytes: 1000, clean: true });
  expect((await (await fetch(path())).arrayBuffer()).byteLength).toBe(1000);
  order({ action: "corrupt", count: 1 });
  const corrupt = await fetch(path());
  expect(corrupt.headers.get("x-amz-checksum")).toBe(honest);
  expect(Buffer.from(await corrupt.arrayBuffer()).equals(blockOf(1))).toBe(false);
  expect(contentOf(await read())).toBe(1);
  order({ action: "checksum" });
  const wrong = await fetch(path());
  expect(wrong.headers.get("x-amz-checksum")).not.toBe(honest);
  expect(contentOf(Buffer.from(await wrong.arrayBuffer()))).toBe(1);
  const { GetSnapshotBlock } = endpoint.stats().operations;
  expect(GetSnapshotBlock).toMatchObject({ calls: 6, unanswered: 1, inFlight: 0 });
});

test("a lost answer has done its work; a reset has not", async () => {
  const { client, endpoint } = await rig();
  const id = await start(client);
  endpoint.faults.add({ action: "reset", operations: ["PutSnapshotBlock"], count: 1 });
  await expect(put(client, id, 0, blockOf(1))).rejects.toThrow();
  await expect(complete(client, id, 1)).rejects.toMatchObject({ name: "ValidationException" });
  endpoint.faults.add({ action: "lost", operations: ["PutSnapshotBlock"], count: 1 });
  await expect(put(client, id, 0, blockOf(1))).rejects.toThrow();
  endpoint.faults.add({ action: "lost", operations: ["CompleteSnapshot"], count: 1 });
  await expect(complete(client, id, 1)).rejects.toThrow();
  expect(await complete(client, id, 1)).toMatchObject({ Status: "completed" });
  endpoint.faults.add({ action: "lost", operations: ["StartSnapshot"], count: 1 });
  await expect(start(client, { ClientToken: "t" })).rejects.toThrow();
  const again = await start(client, { ClientToken: "t" });
  expect(endpoint.stats().snapshots.map((one) => one.snapshotId)).toEqual([id, again]);
});

test("a call that hangs is in flight until its client leaves", async () => {
  const { endpoint, order, path } = await readRig();
  order({ action: "hang" });
  const leave = new AbortController();
  const call = fetch(path(), { signal: leave.signal }).catch(() => "left");
  const row = () => endpoint.stats().operations.GetSnapshotBlock;
  await until(() => row().inFlight === 1);
  leave.abort();
  expect(await call).toBe("left");
  await until(() => row().inFlight === 0);
  expect(row()).toMatchObject({ calls: 1, unanswered: 1, maxInFlight: 1 });
});

test("latency, and what is in flight at its highest", async () => {
  const { endpoint, order, path } = await readRig();
  order({ action: "latency", ms: 100, jitterMs: 20 });
  await Promise.all(Array.from({ length: 8 }, async () => (await fetch(path())).arrayBuffer()));
  expect(endpoint.stats().operations.GetSnapshotBlock).toMatchObject({
    calls: 8,
    maxInFlight: 8,
    bytesOut: 8 * BLOCK_SIZE,
  });
});

test("a seeded share hits the same calls each time", () => {
  const sequence = () => {
    const faults = new Faults();
    faults.add({ action: "error", probability: 0.3, seed: 5 });
    return Array.from(
      { length: 1000 },
      (_, blockIndex) =>
        faults.decide({ operation: "GetSnapshotBlock", snapshotId: "snap-1", blockIndex }, true) !==
        undefined,
    );
  };
  const hits = sequence();
  expect(sequence()).toEqual(hits);
  const share = hits.filter(Boolean).length / hits.length;
  expect(share).toBeGreaterThan(0.2);
  expect(share).toBeLessThan(0.4);
});

test("a count is spent only on calls that the action can strike", async () => {
  const { read, order, list, client, endpoint, id } = await readRig();
  for (const action of ["corrupt", "checksum", "expired-token"] as const) {
    order({ action, count: 1 });
    await list();
    expect(endpoint.faults.list()).toMatchObject([{ hit: 0 }]);
    await expect(read()).rejects.toThrow(/expired|wrong checksum/);
    expect(endpoint.faults.list()).toMatchObject([{ hit: 1 }]);
  }
  order({ action: "short-page", count: 1 });
  await read();
  expect((await list()).Blocks).toHaveLength(1);
  const pending = await start(client, { ParentSnapshotId: id });
  order({ action: "cut", count: 1 });
  await put(client, pending, 0, blockOf(9));
  expect(endpoint.faults.list()).toMatchObject([{ hit: 0 }]);
  await expect(list()).rejects.toThrow();
});

test("a rate limit refuses in the words that were ordered", async () => {
  const { read, order } = await readRig();
  const words = { name: "ThrottlingException", status: 429, message: "slower" } as const;
  order({ action: "rate", perSecond: 0.001, ...words });
  await read();
  await expect(read()).rejects.toMatchObject({
    name: "ThrottlingException",
    message: "slower",
    $metadata: { httpStatusCode: 429 },
  });
});

test.each([
  { action: "short-page", entries: 1.5 },
  { action: "cut", bytes: 10.5 },
  { action: "error", name: "a\nb" },
  { action: "latency", ms: 3e9 },
  { action: "error", blocks: [5, 1] },
  { action: "latency", ms: 1, name: "ThrottlingException" },
  { action: "corrupt", operations: ["PutSnapshotBlock"] },
])("refuses %j, which would strike otherwise than it says", (rule) => {
  expect(() => parseFaultRules(rule)).toThrow(/A fault rule is wrong/);
});

test("the admin path orders faults, counts, and refuses what it does not know", async () => {
  const { endpoint, read, client } = await readRig();
  const admin = (method: string, path: string, body?: unknown, headers = {}) =>
    fetch(`${endpoint.url}/_ebsmount/${path}`, {
      method,
      headers,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  const posted = await admin("POST", "faults", [{ action: "error", count: 1 }]);
  const { ids } = (await posted.json()) as { ids: number[] };
  await expect(read()).rejects.toMatchObject({ name: "InternalServerException" });
  expect(await (await admin("GET", "faults")).json()).toEqual([
    { id: ids[0], rule: { action: "error", count: 1 }, matched: 1, hit: 1 },
  ]);
  await admin("DELETE", `faults/${ids[0]}`);
  expect(endpoint.faults.list()).toEqual([]);
  const wrong = await admin("POST", "faults", { action: "eror" });
  expect(wrong.status).toBe(400);
  expect(await wrong.json()).toMatchObject({ error: expect.stringContaining("action must be") });
  expect((await admin("GET", "stats", undefined, { origin: "http://x" })).status).toBe(403);
  const made = await admin("POST", "synthetic", { size: "2GiB", seed: 7 });
  const { snapshotId } = (await made.json()) as { snapshotId: string };
  const list = () => client.send(new ListSnapshotBlocksCommand({ SnapshotId: snapshotId }));
  expect((await list()).VolumeSize).toBe(2);
  await admin("DELETE", `snapshots/${snapshotId}`);
  await expect(list()).rejects.toMatchObject({ name: "ResourceNotFoundException" });
  await admin("DELETE", "stats");
  expect(endpoint.stats().operations.total.calls).toBe(0);
});

test("rules are checked whole", () => {
  const wrong: unknown[] = [
    1,
    { action: "error", probability: 2 },
    { action: "latency" },
    { action: "rate" },
    { action: "error", operations: ["GetBlock"] },
    { action: "error", blocks: [1] },
    { action: "error", statis: 500 },
  ];
  for (const rule of wrong) expect(() => parseFaultRules(rule)).toThrow(/A fault rule is wrong/);
});
