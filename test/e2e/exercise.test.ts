/**
 * Hundreds of thousands of random operations would find what reasoning did not: test/support/fsx.py does
 * as many as EBSMOUNT_FSX_OPERATIONS says (300000 takes a minute and a half). And what is left when the
 * local disk is full.
 */
import { mkdirSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { GIB, MIB } from "../../src/common/sizes.js";
import { Rig } from "../support/rig.js";
import { must, run } from "../support/scratch.js";

const OPERATIONS = Number(process.env.EBSMOUNT_FSX_OPERATIONS ?? 10_000);
const FSX = new URL("../support/fsx.py", import.meta.url).pathname;

let rig: Rig;
let image: string;
let parent: string;

beforeAll(async () => {
  rig = await Rig.start();
  image = await rig.image("base.img", GIB, [0, 20 * MIB]);
  parent = await rig.import(image);
});
afterAll(() => rig.clean());

async function sameAs(model: string, snapshot: string): Promise<void> {
  const out = rig.scratch.file("out.img");
  await rig.must(["export", "--force", snapshot, out]);
  await must("cmp", [model, out]);
}

async function exercise(target: string, model: string, operations: number): Promise<void> {
  const seed = Math.floor(Math.random() * 1e9);
  const said = await must("python3", [FSX, target, model, String(operations), String(seed)], {
    limit: 600_000,
  });
  expect(said, `seed ${seed}`).toContain("no difference");
}

describe("random operations leave what they leave on a plain file", () => {
  it.each([
    ["kernel", "holes"],
    ["kernel", "refuse"],
    ["libfuse", "refuse"],
  ])(
    "on the image file, %s driver, discards: %s",
    async (driver, discard) => {
      const model = rig.scratch.file("model.img");
      await must("cp", ["--sparse=always", image, model]);
      const how = ["--writeback-delay", "300ms", "--fuse-driver", driver, "--discard", discard];
      const place = await rig.mount(["mount", "--rw", ...how, parent], `fsx-${driver}-${discard}`);
      await exercise(`${place}/${parent}.img`, model, OPERATIONS);
      await sameAs(model, (await rig.must(["unmount", place])).trim());
    },
    700_000,
  );

  it.each([
    ["off", "holes"],
    ["on", "refuse"],
  ])(
    "on a loop device, direct-io %s, discards: %s",
    async (direct, discard) => {
      const model = rig.scratch.file("model.img");
      await must("cp", ["--sparse=always", image, model]);
      const args = ["mount", "--rw", "--discard", discard, parent];
      const place = await rig.mount(args, `loop-${direct}`);
      const file = `${place}/${parent}.img`;
      const loop = (await must("losetup", ["-f", "--show", `--direct-io=${direct}`, file])).trim();
      try {
        await exercise(loop, model, OPERATIONS / 2);
      } finally {
        await must("losetup", ["-d", loop]);
      }
      await sameAs(model, (await rig.must(["unmount", place])).trim());
    },
    700_000,
  );
});

describe("a full disk is ENOSPC to the writer, and what is there can be committed", () => {
  async function fillUp(place: string, model: string): Promise<void> {
    const file = `${place}/${parent}.img`;
    const before = ["if=/etc/services", "bs=4k", "seek=300", "conv=notrunc,fsync", "status=none"];
    await must("dd", [...before, `of=${file}`]);
    await must("dd", [...before, `of=${model}`]);
    const full = ["if=/dev/urandom", "bs=64k", "seek=4096", "count=1600", "conv=notrunc"];
    const { status, stderr } = await run("dd", [...full, `of=${file}`]);
    expect(status).not.toBe(0);
    expect(stderr).toMatch(/No space left/);
    // Sound: it reads, and what was written before is there.
    await must("cmp", ["-n", String(20 * MIB), model, file]);
  }

  it("--overlay-limit", async () => {
    const model = rig.scratch.file("limit.img");
    await must("cp", ["--sparse=always", image, model]);
    const args = ["mount", "--rw", "--overlay-limit", "8MiB", "--no-writeback", parent];
    const place = await rig.mount(args, "limit");
    await fillUp(place, model);
    const snapshot = (await rig.must(["unmount", place])).trim();
    const out = rig.scratch.file("limit.out");
    await rig.must(["export", snapshot, out]);
    await must("cmp", ["-n", String(256 * MIB), model, out]);
  });

  it("a state folder on a small file system", async () => {
    const model = rig.scratch.file("small.img");
    await must("cp", ["--sparse=always", image, model]);
    const state = rig.scratch.file("small-state");
    mkdirSync(state);
    await must("mount", ["-t", "tmpfs", "-o", "size=16m", "none", state]);
    rig.scratch.undo(() => run("umount", ["-l", state]));
    const env = { EBSMOUNT_STATE_DIR: state };
    const place = await rig.mount(["mount", "--rw", "--no-writeback", parent], "small", env);
    await fillUp(place, model);
    const snapshot = (await rig.must(["unmount", place], { env })).trim();
    const out = rig.scratch.file("small.out");
    await rig.must(["export", snapshot, out]);
    await must("cmp", ["-n", String(256 * MIB), model, out]);
    expect(JSON.parse(await rig.must(["sessions", "--json"], { env })).sessions).toEqual([]);
  });
});
