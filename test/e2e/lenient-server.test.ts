/**
 * A server of another make (see test/support/lenient-server.ts). Mounts, exports, imports and commits
 * must be right all the same, or be refused with a clear sentence where what it says cannot be trusted.
 */
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync } from "node:fs";
import { open } from "node:fs/promises";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { BLOCK_SIZE, GIB } from "../../src/common/sizes.js";
import { LenientServer, type Quirk } from "../support/lenient-server.js";
import { Rig } from "../support/rig.js";
import { must, run } from "../support/scratch.js";

/** In the order of writing, which is that of the server's list. */
const WRITTEN = [701, 2, 2047, 0, 700, 1];

let rig: Rig;
let server: LenientServer;
let env: Record<string, string>;
let model: string;
let snapshot: string;

beforeAll(async () => {
  rig = await Rig.start();
  server = await LenientServer.start();
  rig.scratch.undo(() => server.close());
  env = { EBSMOUNT_ENDPOINT_URL: server.url };
  model = rig.scratch.file("model.img");
  const file = await open(model, "w");
  await file.truncate(GIB);
  const blocks = WRITTEN.map((index) => ({ index, data: randomBytes(BLOCK_SIZE) }));
  for (const { index, data } of blocks) await file.write(data, 0, BLOCK_SIZE, index * BLOCK_SIZE);
  await file.close();
  // Put in this order by its own hand: an import's puts overtake each other only by chance.
  const started = await ask("POST", "/snapshots", JSON.stringify({ VolumeSize: 1 }));
  snapshot = ((await started.json()) as { SnapshotId: string }).SnapshotId;
  for (const { index, data } of blocks) {
    const checksum = Buffer.from(await crypto.subtle.digest("SHA-256", data)).toString("base64");
    await ask("PUT", `/snapshots/${snapshot}/blocks/${index}`, data, {
      "x-amz-checksum": checksum,
    });
  }
});
afterAll(() => rig.clean());
beforeEach(() => {
  server.quirk = "";
});

function ask(method: string, path: string, body: string | Buffer, headers = {}): Promise<Response> {
  return fetch(`${server.url}${path}`, { method, body, headers });
}

it("is read right, by mount and by export", async () => {
  const place = await rig.mount(["mount", snapshot], "lenient", env);
  await must("cmp", [model, `${place}/${snapshot}.img`]);
  const map = await must("qemu-img", ["map", "-f", "raw", `${place}/${snapshot}.img`]);
  expect(map).toContain("0x15e00000");
  await rig.must(["unmount", place], { env });
  await rig.must(["export", snapshot, rig.scratch.file("out.img")], { env });
  await must("cmp", [model, rig.scratch.file("out.img")]);
});

it("takes an import that reads back the same", async () => {
  const made = (await rig.must(["import", model], { env })).trim();
  await rig.must(["export", made, rig.scratch.file("made.img")], { env });
  await must("cmp", [model, rig.scratch.file("made.img")]);
});

it.each<Quirk>(["no checksum", "another block", "short"])(
  "blocks: %s is an error",
  async (what) => {
    const place = await rig.mount(["mount", "--io-timeout", "2s", snapshot], "blocks", env);
    server.quirk = what;
    const read = ["of=/dev/null", "bs=4k", "count=1", "skip=128", "status=none"];
    const { status, stderr } = await run("dd", [`if=${place}/${snapshot}.img`, ...read]);
    expect(status).not.toBe(0);
    expect(stderr).toMatch(/Input\/output error|timed out/);
    server.quirk = "";
    await must("cmp", [model, `${place}/${snapshot}.img`]);
    await rig.must(["unmount", place], { env });
  },
);

it("a list that makes no sense is refused with a sentence", async () => {
  server.quirk = "twice";
  const out = rig.scratch.file("refused.img");
  const { status, stderr } = await rig.run(["export", snapshot, out], { env });
  expect(status).toBe(1);
  expect(stderr).toMatch(/^ebsmount: .*block/);
  expect(existsSync(out)).toBe(false);
});

it("a child that lacks its parent's blocks is never called good", async () => {
  const changed = rig.scratch.file("changed.img");
  await must("cp", ["--sparse=always", model, changed]);
  await must("dd", ["if=/etc/services", `of=${changed}`, "conv=notrunc", "status=none"]);
  const imported = await rig.run(["import", changed, "--parent", snapshot], { env });
  expect(imported).toMatchObject({ status: 1, stdout: "" });
  expect(imported.stderr).toMatch(/lacks block 1 of its parent snap-abc/);

  const place = await rig.mount(["mount", "--rw", snapshot], "child", env);
  const write = ["if=/etc/services", `of=${place}/${snapshot}.img`, "conv=notrunc", "status=none"];
  await must("dd", write);
  const committed = await rig.run(["unmount", place], { env });
  expect(committed).toMatchObject({ status: 1, stdout: "" });
  expect(committed.stderr).toMatch(/lacks block 1 of its parent snap-abc/);
  expect(await rig.must(["sessions"], { env })).toContain(snapshot);

  server.quirk = "other parent";
  const other = await rig.run(["import", changed, "--parent", snapshot], { env });
  expect(other).toMatchObject({ status: 1, stdout: "" });
  expect(other.stderr).toMatch(/as a child of snap-0bad/);
});

it.each<[Quirk, number]>([
  ["null list", 1],
  ["same token", 8],
  ["tokens in a circle", 8],
  ["new tokens", 52],
])("a list of %s ends export, mount and import after %i calls at most", async (quirk, most) => {
  const place = await rig.mount(["mount", "--cache-size", "8MiB", snapshot], "lists", env);
  const out = rig.scratch.file("nowhere.img");
  server.quirk = quirk;
  server.counts.lists = 0;
  const exported = await rig.run(["export", snapshot, out], { env });
  expect(exported.status).toBe(1);
  expect(exported.stderr).toMatch(/list.*snap-abc|Blocks is missing or not a list/);
  expect(server.counts.lists).toBeLessThanOrEqual(most);

  // One that was mounted in time knows its whole list. One that is mounted now fails, or its reads do.
  await must("cmp", [model, `${place}/${snapshot}.img`]);
  server.counts.lists = 0;
  mkdirSync(rig.scratch.file("other"), { recursive: true });
  const mounted = await rig.run(["mount", snapshot, rig.scratch.file("other")], { env });
  if (mounted.status === 0) {
    const image = mounted.stdout.trim();
    const read = await run("dd", [
      `if=${image}`,
      "of=/dev/null",
      "bs=4k",
      "count=1",
      "iflag=direct",
    ]);
    expect(read.stderr).toMatch(/Input\/output error/);
    await rig.must(["unmount", rig.scratch.file("other")], { env });
  }
  expect(server.counts.lists).toBeLessThanOrEqual(1 + most);

  server.counts.lists = 0;
  const imported = await rig.run(["import", model], { env, limit: 20_000 });
  expect(imported).toMatchObject({ status: 1, stdout: "" });
  expect(server.counts.lists).toBeLessThanOrEqual(1 + most);
  await rig.must(["unmount", place], { env });
});

it("is not believed that a snapshot is completed that was started just now", async () => {
  server.quirk = "starts completed";
  server.counts.puts = 0;
  const imported = await rig.run(["import", model], { env });
  expect(imported).toMatchObject({ status: 1, stdout: "" });
  expect(imported.stderr).toMatch(/snap-\w+ was started just now, .* completed already/);
  const again = await rig.run(["import", model, "--client-token", "mine"], { env });
  expect(again).toMatchObject({ status: 0 });
  expect(server.counts.puts).toBe(0);
});

it("is sent nothing that was to be encrypted, as it does not say that it does that", async () => {
  server.counts.puts = 0;
  const key = "arn:aws:kms:us-east-1:123456789012:key/mine";
  for (const options of [["--encrypted"], ["--kms-key-arn", key]]) {
    const imported = await rig.run(["import", model, ...options], { env });
    expect(imported).toMatchObject({ status: 1, stdout: "" });
    expect(imported.stderr).toMatch(/started snap-\w+ without naming a key, though .* asked for/);
  }
  const create = ["create", "--size", "1GiB", "--encrypted", "--writeback-delay", "100ms"];
  const place = await rig.mount(create, "encrypted", env);
  await must("dd", ["if=/etc/services", `of=${place}/volume.img`, "conv=notrunc,fsync"]);
  const unmounted = await rig.run(["unmount", place], { env });
  expect(unmounted).toMatchObject({ status: 1, stdout: "" });
  expect(unmounted.stderr).toMatch(/without naming a key.*They are kept/);
  const { sessions } = JSON.parse(await rig.must(["sessions", "--json"], { env }));
  const { id } = sessions.find(({ mountPoint }: { mountPoint: string }) => mountPoint === place);
  const resumed = await rig.run(["commit", id], { env });
  expect(resumed).toMatchObject({ status: 1, stdout: "" });
  expect(resumed.stderr).toMatch(/without naming a key/);
  expect(server.counts.puts).toBe(0);
});
