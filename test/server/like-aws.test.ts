/** An endpoint that behaves like AWS: each habit is there, and no order takes it away. */
import { ListSnapshotBlocksCommand } from "@aws-sdk/client-ebs";
import { expect, test } from "vitest";
import { Faults } from "../../src/server/faults.js";
import { LIKE_AWS } from "../../src/server/like-aws.js";
import { blockOf, complete, get, put, rig, start, until } from "./rig.js";

async function likeAws() {
  const { client, endpoint } = await rig({ likeAws: true });
  endpoint.faults.clear();
  const list = (SnapshotId: string) => client.send(new ListSnapshotBlocksCommand({ SnapshotId }));
  return { client, endpoint, list };
}

/** How many of these calls went well, and the names of the exceptions of the others. */
async function outcomes(calls: readonly Promise<unknown>[]): Promise<[number, string[]]> {
  const settled = await Promise.allSettled(calls);
  const failed = settled.filter((one) => one.status === "rejected");
  const names = failed.map((one) => String((one.reason as Error).name));
  return [settled.length - failed.length, [...new Set(names)]];
}

const times = <T>(count: number, work: (i: number) => T): T[] =>
  Array.from({ length: count }, (_, i) => work(i));

test("a snapshot is known by and by, and completed later", async () => {
  const { client, endpoint, list } = await likeAws();
  expect(endpoint.faults.list()).toEqual([]);
  const id = await start(client);
  const early = await outcomes(times(24, (i) => put(client, id, i, blockOf(i))));
  expect(early[0]).toBeGreaterThan(0);
  expect(early[1]).toEqual(["ResourceNotFoundException"]);
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  expect(await outcomes(times(24, (i) => put(client, id, i, blockOf(i))))).toEqual([24, []]);

  expect((await complete(client, id, 24)).Status).toBe("pending");
  expect((await complete(client, id, 24)).Status).toBe("pending");
  await expect(list(id)).rejects.toMatchObject({ Reason: "INVALID_SNAPSHOT_ID" });
  await until(() => endpoint.stats().snapshots[0]!.status === "completed");
  const lists = await outcomes(times(20, () => list(id)));
  expect(lists[0]).toBeGreaterThan(0);
  expect(lists[1]).toEqual(["ResourceNotFoundException"]);
});

test("calls take their time, and tokens change from list to list but stay valid", async () => {
  const { client, endpoint, list } = await likeAws();
  const id = endpoint.createSynthetic({ volumeSizeGiB: 1, written: 1, seed: 1 });
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  const [first, second] = [await list(id), await list(id)];
  const tokens = [first, second].map(({ Blocks }) => Blocks![0]!.BlockToken!);
  expect(tokens[0]).not.toBe(tokens[1]);
  for (const token of tokens) {
    const began = performance.now();
    await get(client, id, 0, token);
    expect(performance.now() - began).toBeGreaterThanOrEqual(10);
  }
});

test("quotas are the account's", async () => {
  const { client, endpoint, list } = await likeAws();
  const id = endpoint.createSynthetic({ volumeSizeGiB: 1, written: 1, seed: 1 });
  const [listed, throttled] = await outcomes(times(80, () => list(id)));
  expect(listed).toBeLessThan(60);
  expect(throttled).toContain("ThrottlingException");
  const [started, refused] = await outcomes(times(20, () => start(client)));
  expect(started).toBeLessThan(15);
  expect(refused).toEqual(["ThrottlingException"]);
});

test.each(["GetSnapshotBlock", "PutSnapshotBlock"] as const)(
  "quotas are the snapshot's first: %s",
  (operation) => {
    const faults = new Faults({ habits: LIKE_AWS.habits });
    const refusals = (snapshotId: string) =>
      times(1_200, (blockIndex) => faults.decide({ operation, snapshotId, blockIndex }, true))
        .map((plan) => plan?.error)
        .filter((error) => error !== undefined);
    const ofSnapshot = refusals("snap-1");
    expect(ofSnapshot.length).toBeGreaterThan(100);
    for (const { name, reason } of ofSnapshot) {
      expect([name, reason]).toEqual(["RequestThrottledException", "RESOURCE_LEVEL_THROTTLE"]);
    }
    // The first snapshot has used up what the account had.
    const ofAccount = refusals("snap-2");
    expect(ofAccount.length).toBeGreaterThan(1_000);
    expect(ofAccount[0]).toMatchObject({ name: "ThrottlingException", reason: undefined });
  },
);
