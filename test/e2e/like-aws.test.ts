/**
 * The way of an image against an endpoint that behaves like AWS (src/server/like-aws.ts): imported,
 * mounted and read, written, committed, exported. This is the part of scripts/test-like-aws that
 * every run of the tests has.
 */
import { open } from "node:fs/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { GIB, MIB } from "../../src/common/sizes.js";
import { Rig } from "../support/rig.js";
import { must } from "../support/scratch.js";

let rig: Rig;

beforeAll(async () => {
  rig = await Rig.start({ likeAws: true });
});
afterAll(() => rig.clean());

it("import, mount, read, write, commit, export", async () => {
  const image = await rig.image("disk.img", GIB, [0, 20 * MIB], [700 * MIB + 3, 5 * MIB]);
  const parent = await rig.import(image);
  const reading = await rig.mount(["mount", parent], "reading");
  await must("cmp", [image, `${reading}/${parent}.img`]);
  await rig.must(["unmount", reading]);

  const writing = await rig.mount(["mount", "--rw", parent], "writing");
  const written = [`${writing}/${parent}.img`, image];
  for (const path of written) {
    const file = await open(path, "r+");
    await file.write(Buffer.alloc(3 * MIB, "new"), 0, 3 * MIB, 699 * MIB + 77);
    await file.sync();
    await file.close();
  }
  const child = (await rig.must(["unmount", writing])).trim();

  const blank = await rig.mount(["create", "--size", "1GiB"], "blank");
  await must("mkfs.ext4", ["-q", "-F", `${blank}/volume.img`]);
  const made = (await rig.must(["unmount", blank], { limit: 120_000 })).trim();

  for (const [snapshot, expected] of [
    [child, image],
    [made, undefined],
  ] as const) {
    const out = rig.scratch.file(`${snapshot}.out`);
    await rig.must(["export", snapshot, out]);
    if (expected === undefined) await must("e2fsck", ["-fn", out]);
    else await must("cmp", [expected, out]);
  }
  expect(rig.endpoint.stats().snapshots.every(({ status }) => status === "completed")).toBe(true);
});
