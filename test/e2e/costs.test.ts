/**
 * What requests cost, counted at the endpoint: few and small lists where little is wanted, and an end to
 * lists that lead nowhere.
 */
import { randomBytes } from "node:crypto";
import { open, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BLOCK_SIZE, BLOCKS_PER_GIB } from "../../src/common/sizes.js";
import { Rig } from "../support/rig.js";
import { until } from "../support/scratch.js";

let rig: Rig;
beforeAll(async () => {
  rig = await Rig.start();
});
afterAll(() => rig.clean());

const counts = () => rig.endpoint.stats().operations;

async function change(path: string, block: number): Promise<void> {
  const file = await open(path, "r+");
  await file.write(randomBytes(4096), 0, 4096, block * BLOCK_SIZE + 4096);
  await file.sync();
  await file.close();
}

/** Ends the process of a mount as a crash would. */
async function kill(place: string): Promise<void> {
  const folder = join(rig.env.EBSMOUNT_STATE_DIR as string, "mounts");
  for (const name of await readdir(folder)) {
    if (!name.endsWith(".json")) continue;
    const record = JSON.parse(await readFile(join(folder, name), "utf8"));
    if (record.mountPoint === place) process.kill(record.pid, "SIGKILL");
  }
}

describe("one changed block of a fully written 64 GiB", () => {
  const last = 64 * BLOCKS_PER_GIB - 1;
  let parent: string;
  beforeAll(() => {
    parent = rig.endpoint.createSynthetic({ volumeSizeGiB: 64, written: 1, seed: 1 });
  });

  function expectFewLists(): void {
    const { ListSnapshotBlocks, ListChangedBlocks, GetSnapshotBlock, PutSnapshotBlock } = counts();
    expect(ListSnapshotBlocks.calls).toBeLessThanOrEqual(4);
    expect(ListSnapshotBlocks.bytesOut).toBeLessThan(200_000);
    expect(ListChangedBlocks.calls).toBe(0);
    expect(PutSnapshotBlock.calls).toBe(1);
    expect(GetSnapshotBlock.calls).toBe(1);
  }

  it.each([0, 1, 77_777, last])("block %i: mount, write, unmount", async (block) => {
    rig.endpoint.resetStats();
    const place = await rig.mount(["mount", "--rw", parent], `rw${block}`);
    await change(`${place}/${parent}.img`, block);
    expect(await rig.must(["unmount", place])).toMatch(/^snap-/);
    expectFewLists();
  });

  it.each([5, 100_000, last])("block %i: commit after a crash", async (block) => {
    const place = await rig.mount(["mount", "--rw", "--no-writeback", parent], `crash${block}`);
    await change(`${place}/${parent}.img`, block);
    await kill(place);
    await until("the mount is seen as dead", async () =>
      (await rig.must(["status"])).includes("stale"),
    );
    await rig.run(["unmount", place]);
    const { sessions } = JSON.parse(await rig.must(["sessions", "--json"]));
    rig.endpoint.resetStats();
    expect(await rig.must(["commit", sessions[0].id])).toMatch(/^snap-/);
    expectFewLists();
  });

  it("is mounted by one list call, however many snapshots there are beside it", async () => {
    const others = [2, 3, 4].map((seed) =>
      rig.endpoint.createSynthetic({ volumeSizeGiB: 64, written: 1, seed }),
    );
    rig.endpoint.resetStats();
    const place = await rig.mount(["mount", parent, ...others], "many");
    expect(counts().ListSnapshotBlocks.calls).toBe(4);
    expect(counts().ListSnapshotBlocks.bytesOut).toBeLessThan(4 * 16_000);
    await rig.must(["unmount", place]);
  });
});
