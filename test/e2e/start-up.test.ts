/** What a command loads before it can do its work: a user waits for every module of it. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Rig } from "../support/rig.js";

let rig: Rig;
beforeAll(async () => {
  rig = await Rig.start();
});
afterAll(() => rig.clean());

/** Of the scripts that a command's own process ran, by V8's coverage, those that only others need. */
function needless(coverage: string): string[] {
  // A mount's process goes on: it has not written its file yet.
  const [name, ...more] = readdirSync(coverage);
  expect(more).toEqual([]);
  const { result } = JSON.parse(readFileSync(join(coverage, name as string), "utf8"));
  const urls = (result as { url: string }[]).map(({ url }) => url);
  expect(urls.join(" ")).toContain("dist/cli/main.js");
  return urls.filter((url) => /aws-sdk|smithy|koffi|lru-cache|\/pino/.test(url));
}

it.each([[["--help"]], [["mount", "--help"]], [["status"]]])("%j loads no SDK", async (args) => {
  const coverage = rig.scratch.file(`coverage-${args.join("-")}`);
  await rig.must(args, { env: { NODE_V8_COVERAGE: coverage } });
  expect(needless(coverage)).toEqual([]);
});

it("the command that mounts leaves the SDK to the mount's process", async () => {
  const snapshot = rig.endpoint.createSynthetic({ volumeSizeGiB: 1, written: 1, seed: 1 });
  const coverage = rig.scratch.file("coverage-mount");
  const place = await rig.mount(["mount", snapshot], "small", { NODE_V8_COVERAGE: coverage });
  expect(needless(coverage)).toEqual([]);
  await rig.must(["unmount", place]);
});
