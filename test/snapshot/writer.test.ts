/** What the service says of a snapshot that it starts is compared with what it was asked for. */
import { expect, test } from "vitest";
import type { StartSnapshotOptions } from "../../src/ebs/api.js";
import { startSnapshotWriter } from "../../src/snapshot/writer.js";
import { FakeEbs } from "../overlay/fake-ebs.js";

const KEY = "arn:aws:kms:us-east-1:123456789012:key/mine";
const OTHER = "arn:aws:kms:us-east-1:123456789012:key/other";
const START = { volumeSizeGiB: 1, clientToken: "token" };

function start(options: Partial<StartSnapshotOptions>, answered: string | undefined) {
  const api = new FakeEbs();
  api.kmsKeyOf = () => answered;
  return startSnapshotWriter(api, { ...START, ...options });
}

test.each<[string, Partial<StartSnapshotOptions>, string | undefined]>([
  ["nothing asked, nothing named", {}, undefined],
  ["nothing asked, encrypted by default", {}, KEY],
  ["encryption asked", { encrypted: true }, KEY],
  ["a key asked", { encrypted: true, kmsKeyArn: KEY }, KEY],
  ["a child, whose parent decides", { parentSnapshotId: "snap-0a" }, undefined],
  ["a child of an encrypted parent", { parentSnapshotId: "snap-0a" }, OTHER],
])("%s: started", async (_, options, answered) => {
  expect((await start(options, answered)).status).toBe("pending");
});

test.each<[string, Partial<StartSnapshotOptions>, string | undefined, RegExp]>([
  ["encryption asked", { encrypted: true }, undefined, /without naming a key, though encryption/],
  ["a key asked", { encrypted: true, kmsKeyArn: KEY }, undefined, /without naming a key, .*mine/],
  ["another key", { encrypted: true, kmsKeyArn: KEY }, OTHER, /key\/other, .*key\/mine was asked/],
])("%s, and the response does not have it: refused", async (_, options, answered, told) => {
  await expect(start(options, answered)).rejects.toThrow(told);
});
