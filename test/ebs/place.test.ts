/** The rules of place-rules.ts, as the library follows them: in its requests, its threads and its sessions. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BLOCK_SIZE } from "../../src/common/sizes.js";
import { settledOptions } from "../../src/ebs/client.js";
import { createEbsApi } from "../../src/ebs/create.js";
import type { SnapshotId } from "../../src/ebs/snapshot-id.js";
import { AwsHome } from "../support/aws-home.js";
import { Places, RULES } from "../support/place-rules.js";

const SNAPSHOT = "snap-0123456789abcdef0" as SnapshotId;
let places: Places;
let home: AwsHome;

beforeAll(async () => {
  places = await Places.start();
  home = new AwsHome();
  places.writeHome(home.path);
});

afterAll(async () => {
  await places.close();
  home.remove();
});

describe("region, endpoint and credentials", () => {
  test.each(RULES)("$rule", async (rule) => {
    home.setEnvironment(places.environment(home.path, rule));
    const options = {
      ...(rule.region !== undefined && { region: rule.region }),
      ...(rule.profile !== undefined && { profile: rule.profile }),
      ...(rule.endpoint !== undefined && { endpointUrl: places.urls[rule.endpoint] as string }),
    };
    places.take();
    const api = createEbsApi({ ...options, threads: 0, ioTimeoutMs: 5_000 });
    try {
      const isOurs = places.urls[rule.seen.place] !== undefined;
      const listed = api.listSnapshotBlocks(SNAPSHOT);
      if (isOurs) await listed;
      else await expect(listed).rejects.toThrow(/proxy .* connect to ebs/);
      expect(places.take()).toEqual(rule.seen);
      // Blocks are signed past the SDK.
      await api.getSnapshotBlock(SNAPSHOT, 0, "AAAA", new Uint8Array(BLOCK_SIZE)).catch(() => {});
      expect(places.take()).toEqual(rule.seen);
      const settled = await settledOptions(options);
      const url = places.urls[rule.seen.place] ?? `https://${rule.seen.place.replace(/:443$/, "")}`;
      expect(settled.endpointUrl).toBe(url);
      if (isOurs) expect(settled.region).toBe(rule.seen.region);
    } finally {
      await api.close();
    }
  });
});

test("block threads go to the place of --profile, with its keys", async () => {
  const rule = RULES.find(({ profile }) => profile === "services");
  if (rule === undefined) throw new Error("no such rule");
  home.setEnvironment({ ...places.environment(home.path, rule), AWS_ENDPOINT_URL: "" });
  const api = createEbsApi({ profile: "services", threads: 1, ioTimeoutMs: 2_000 });
  try {
    await api.listSnapshotBlocks(SNAPSHOT);
    const target = new Uint8Array(new SharedArrayBuffer(BLOCK_SIZE));
    const get = () => api.getSnapshotBlock(SNAPSHOT, 0, "AAAA", target).catch(() => {});
    const getMany = async () => {
      // Threads are started when blocks are wanted in parallel.
      await Promise.all(Array.from({ length: 8 }, get));
      return api.readyThreads;
    };
    await expect.poll(getMany, { timeout: 20_000 }).toBe(1);
    places.take();
    await get();
    expect(places.take()).toEqual({ place: "c", region: "ap-south-2", key: "SERVICESKEY" });
  } finally {
    await api.close();
  }
});

test("what a session records of a profile: none where keys in the environment sign", async () => {
  const base = places.environment(home.path, { ...(RULES[0] as (typeof RULES)[0]) });
  home.setEnvironment({ ...base, AWS_PROFILE: "here" });
  const [region, endpointUrl] = ["ap-south-1", places.urls.b];
  expect(await settledOptions({})).toEqual({ region, endpointUrl, profile: "here" });
  Object.assign(process.env, { AWS_ACCESS_KEY_ID: "ENVKEY", AWS_SECRET_ACCESS_KEY: "secret" });
  expect(await settledOptions({})).toEqual({ region, endpointUrl });
  expect(await settledOptions({ profile: "here" })).toEqual({
    region,
    endpointUrl,
    profile: "here",
  });
});
