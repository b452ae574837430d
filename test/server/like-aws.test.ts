/**
 * An endpoint that behaves like AWS: each habit is there, and no order takes it away. What depends on
 * time is tried on the rules themselves, at a time of the test's own.
 */
import { ListSnapshotBlocksCommand } from "@aws-sdk/client-ebs";
import { afterEach, describe, expect, test, vi } from "vitest";
import type { Operation } from "../../src/server/call.js";
import { Faults } from "../../src/server/faults.js";
import { LIKE_AWS } from "../../src/server/like-aws.js";
import { complete, get, rig, start, until } from "./rig.js";

async function likeAws() {
  const { client, endpoint } = await rig({ likeAws: true });
  endpoint.faults.clear();
  expect(endpoint.faults.list()).toEqual([]);
  const list = (SnapshotId: string) => client.send(new ListSnapshotBlocksCommand({ SnapshotId }));
  return { client, endpoint, list };
}

test("completion comes later, over and over `pending` until then", async () => {
  const { client, endpoint, list } = await likeAws();
  const id = await start(client);
  const began = Date.now();
  let Status: string | undefined;
  await until(async () => {
    ({ Status } = await complete(client, id, 0).catch(() => ({ Status: undefined })));
    return Status !== undefined;
  });
  expect(Status).toBe("pending");
  await expect(list(id)).rejects.toMatchObject({ Reason: "INVALID_SNAPSHOT_ID" });
  await until(() => endpoint.stats().snapshots[0]!.status === "completed");
  expect(Date.now() - began).toBeGreaterThanOrEqual(LIKE_AWS.completionDelayMs);
  await until(() =>
    list(id).then(
      () => true,
      (error: Error) => error.name !== "ResourceNotFoundException",
    ),
  );
  expect((await list(id)).Blocks).toEqual([]);
});

test("calls take their time, and tokens change from list to list but stay valid", async () => {
  const { client, endpoint, list } = await likeAws();
  const id = endpoint.createSynthetic({ volumeSizeGiB: 1, written: 1, seed: 1 });
  const [first, second] = [await list(id), await list(id)];
  const tokens = [first, second].map(({ Blocks }) => Blocks![0]!.BlockToken!);
  expect(tokens[0]).not.toBe(tokens[1]);
  for (const token of tokens) {
    const began = performance.now();
    await get(client, id, 0, token);
    expect(performance.now() - began).toBeGreaterThanOrEqual(9);
  }
});

describe("in the course of time", () => {
  afterEach(() => {
    vi.useRealTimers();
  });

  function habits() {
    vi.useFakeTimers({ toFake: ["Date", "performance"] });
    const startedAt = Date.now();
    const completesAt = startedAt + 5_000;
    const faults = new Faults({
      habits: LIKE_AWS.habits,
      lookUp: () => {
        const isCompleted = Date.now() >= completesAt;
        return isCompleted
          ? { status: "completed", startedAt, completesAt }
          : { status: "pending", startedAt };
      },
    });
    /** What so many calls get: "" is no refusal. */
    const refusals = (operation: Operation, count: number, snapshotId = "snap-1") => {
      const names = Array.from({ length: count }, (_, blockIndex) => {
        const { error } = faults.decide({ operation, snapshotId, blockIndex }, true) ?? {};
        return error === undefined ? "" : `${error.name} ${error.reason ?? ""}`.trim();
      });
      return Object.fromEntries([...new Set(names)].map((name) => [name, countOf(names, name)]));
    };
    const later = (ms: number) => vi.advanceTimersByTime(ms);
    return { refusals, later };
  }

  const countOf = (names: readonly string[], name: string) =>
    names.filter((one) => one === name).length;

  const UNKNOWN = "ResourceNotFoundException SNAPSHOT_NOT_FOUND";

  test.each(["PutSnapshotBlock", "CompleteSnapshot"] as const)(
    "a snapshot is found by some of %s only, soon after its start",
    (operation) => {
      const { refusals, later } = habits();
      later(999);
      // Few enough for the quota of CompleteSnapshot.
      expect(Object.keys(refusals(operation, 10)).sort()).toEqual(["", UNKNOWN]);
      later(1_000);
      expect(refusals(operation, 10)).toEqual({ "": 10 });
    },
  );

  test("a snapshot is found by some lists only, soon after its completion", () => {
    const { refusals, later } = habits();
    expect(refusals("ListSnapshotBlocks", 20)).toEqual({ "": 20 });
    later(5_000);
    expect(Object.keys(refusals("ListSnapshotBlocks", 40)).sort()).toEqual(["", UNKNOWN]);
    expect(Object.keys(refusals("ListChangedBlocks", 40)).sort()).toEqual(["", UNKNOWN]);
    later(1_000);
    expect(refusals("ListSnapshotBlocks", 20)).toEqual({ "": 20 });
  });

  test.each([
    ["StartSnapshot", 10],
    ["CompleteSnapshot", 10],
    ["ListSnapshotBlocks", 50],
    ["ListChangedBlocks", 50],
  ] as const)("%s: %d a second in the account", (operation, rate) => {
    const { refusals, later } = habits();
    later(3_000);
    for (const allowed of [rate, rate / 2]) {
      expect(refusals(operation, 100)).toEqual({
        "": allowed,
        ThrottlingException: 100 - allowed,
      });
      later(500);
    }
  });

  test.each(["GetSnapshotBlock", "PutSnapshotBlock"] as const)(
    "%s: 1000 a second of a snapshot, and in the account",
    (operation) => {
      const { refusals, later } = habits();
      later(3_000);
      const ofSnapshot = "RequestThrottledException RESOURCE_LEVEL_THROTTLE";
      expect(refusals(operation, 1_200)).toEqual({ "": 1_000, [ofSnapshot]: 200 });
      expect(refusals(operation, 100, "snap-2")).toEqual({ ThrottlingException: 100 });
      later(100);
      expect(refusals(operation, 200)).toEqual({ "": 100, [ofSnapshot]: 100 });
    },
  );
});
