/**
 * What requests cost, counted at the endpoint: few and small lists where little is wanted, and an end to
 * lists that lead nowhere.
 */
import { randomBytes } from "node:crypto";
import { readdirSync } from "node:fs";
import { open, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BLOCK_SIZE, BLOCKS_PER_GIB, GIB, MIB } from "../../src/common/sizes.js";
import { Rig } from "../support/rig.js";
import { must, until } from "../support/scratch.js";

let rig: Rig;
beforeAll(async () => {
  // Requests are counted: none may be made twice because of the habits of scripts/test-like-aws.
  rig = await Rig.start({ likeAws: false });
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

describe("a limit", () => {
  const BLOCKS = 120;
  let image: string;
  let snapshot: string;
  beforeAll(async () => {
    image = await rig.image("limited.img", GIB, [3 * MIB, 60 * MIB]);
    snapshot = await rig.import(image);
  });

  /** Sent since the last reset, and what that costs, USD. */
  function spent(): { requests: number; usd: number } {
    const { total, ListSnapshotBlocks, GetSnapshotBlock, PutSnapshotBlock } = counts();
    const gets = GetSnapshotBlock.calls * 0.003;
    const puts = PutSnapshotBlock.calls * 0.006;
    return {
      requests: total.calls,
      usd: (ListSnapshotBlocks.calls * 0.0006 + gets + puts) / 1000,
    };
  }

  it("ends an export, whose blocks are kept; the same command goes on with it", async () => {
    const target = rig.scratch.file("limited-out.img");
    let gets = 0;
    for (let runs = 1; ; runs += 1) {
      rig.endpoint.resetStats();
      const ran = await rig.run(["export", "--max-requests", "50", snapshot, target]);
      gets += counts().GetSnapshotBlock.calls;
      if (ran.status === 0) {
        expect(runs).toBe(3);
        break;
      }
      expect(ran.status).toBe(1);
      expect(ran.stderr).toMatch(
        /GetSnapshotBlock of block \d+ of snap-\w+ failed: --max-requests 50 is reached \(50 requests so far, about \$0\.0001\d\)\. .* counts from zero\. What is there is kept in .*\.partial; the same command goes on/,
      );
      expect(spent().requests).toBe(50);
    }
    expect(gets).toBe(BLOCKS);
    await must("cmp", [image, target]);
  });

  it("in dollars ends an import, which its token goes on with", async () => {
    const limit = 0.0003;
    let puts = 0;
    let advice: string[] = [];
    for (let runs = 1; ; runs += 1) {
      rig.endpoint.resetStats();
      const command = ["import", image, ...advice];
      const ran = await rig.run(command, { env: { EBSMOUNT_MAX_COST: String(limit) } });
      puts += counts().PutSnapshotBlock.calls;
      expect(spent().usd).toBeLessThanOrEqual(limit);
      if (ran.status === 0) {
        expect(runs).toBe(3);
        break;
      }
      expect(ran).toMatchObject({ status: 1, stdout: "" });
      expect(ran.stderr).toContain("--max-cost $0.00030 is reached");
      expect(spent().usd).toBeGreaterThan(limit - 0.000006);
      const token = /--client-token (\S+)/.exec(ran.stderr)?.[1];
      advice = ["--client-token", token as string];
    }
    expect(puts).toBe(BLOCKS);
  });

  it("ends the reads of a mount, with EDQUOT and a line in the log; what is in memory is read on", async () => {
    const log = rig.scratch.file("limited.log");
    const options = ["--max-requests", "12", "--readahead", "0", "--log-file", log];
    for (const driver of ["kernel", "libfuse"]) {
      rig.endpoint.resetStats();
      const mount = ["mount", ...options, "--fuse-driver", driver, snapshot];
      const place = await rig.mount(mount, `limited-${driver}`);
      const file = await open(`${place}/${snapshot}.img`);
      const page = Buffer.alloc(4096);
      const read = (block: number) => file.read(page, 0, page.length, block * BLOCK_SIZE);
      for (let block = 6; block < 16; block += 1) await read(block);
      await expect(Promise.all([90, 91, 92].map(read))).rejects.toMatchObject({ errno: -122 });
      await read(6);
      await file.close();
      expect(counts().total.calls).toBe(12);
      expect(await rig.must(["status"])).toMatch(/at most +12 requests/);
      expect(await readFile(log, "utf8")).toMatch(
        /EDQUOT: GetSnapshotBlock of block 9\d of snap-\w+ failed: --max-requests 12 is reached/,
      );
      await rig.must(["unmount", place]);
    }
  });

  it("ends the commit of an unmount; the session is kept, and commit goes on with it", async () => {
    const mount = ["mount", "--rw", "--no-writeback", "--max-requests", "40"];
    rig.endpoint.resetStats();
    const place = await rig.mount([...mount, snapshot], "limited-rw");
    const changed = ["if=/dev/urandom", "bs=1M", "count=40", "seek=100", "conv=notrunc,fsync"];
    await must("dd", [`of=${place}/${snapshot}.img`, ...changed]);
    const unmounted = await rig.run(["unmount", place]);
    expect(unmounted).toMatchObject({ status: 1, stdout: "" });
    expect(unmounted.stderr).toMatch(/--max-requests 40 is reached .*They are kept: finish/);
    expect(counts().total.calls).toBe(40);
    const session = /ebsmount commit (\S+?)`/.exec(unmounted.stderr)?.[1] as string;
    const puts = counts().PutSnapshotBlock.calls;
    const ended = await rig.run(["commit", "--max-requests", "10", session]);
    expect(ended).toMatchObject({ status: 1, stdout: "" });
    expect(ended.stderr).toMatch(/--max-requests 10 is reached/);
    expect(await rig.must(["commit", "--max-requests", "100", session])).toMatch(/^snap-/);
    expect(puts).toBeGreaterThan(30);
    expect(counts().PutSnapshotBlock.calls).toBe(80);
  });

  it("ends the background upload of a mount, which is said once; the unmount then says how to go on", async () => {
    const log = rig.scratch.file("background.log");
    const options = ["--max-requests", "20", "--writeback-delay", "100ms", "--log-file", log];
    const place = await rig.mount(["create", "--size", "1GiB", ...options], "limited-background");
    const written = ["if=/dev/urandom", "bs=1M", "count=20", "conv=notrunc,fsync"];
    await must("dd", [`of=${place}/volume.img`, ...written]);
    await until("the limit is reached", async () =>
      (await readFile(log, "utf8")).includes("Background upload ends: "),
    );
    const unmounted = await rig.run(["unmount", place]);
    expect(unmounted).toMatchObject({ status: 1, stdout: "" });
    expect(unmounted.stderr).toMatch(/--max-requests 20 is reached .*They are kept: finish/);
    expect((await readFile(log, "utf8")).match(/Background upload/g)).toHaveLength(1);
  });

  it("is an amount or a number, else wrong usage", async () => {
    for (const wrong of ["0", "-1", "free", "1e3", "2000000"]) {
      const ran = await rig.run(["export", `--max-cost=${wrong}`, snapshot, "/tmp/nowhere"]);
      expect(ran.status).toBe(2);
      expect(ran.stderr).toMatch(/is not an amount above 0 in US dollars: write 0.50 or 12/);
    }
    const ran = await rig.run(["export", "--max-requests", "1.5", snapshot, "/tmp/nowhere"]);
    expect(ran).toMatchObject({ status: 2 });
  });
});

describe("an estimate", () => {
  /** Written in part, so that no list has a round number. */
  let synthetic: string;
  let image: string;
  let snapshot: string;
  beforeAll(async () => {
    synthetic = rig.endpoint.createSynthetic({ volumeSizeGiB: 64, written: 0.1, seed: 7 });
    image = await rig.image("estimated.img", GIB, [0, 20 * MIB], [500 * MIB, 10 * MIB]);
    snapshot = await rig.import(image);
  });

  async function estimate(...command: string[]) {
    const told = JSON.parse(await rig.must([...command, "--estimate", "--json"]));
    const { atLeast, atMost } = told;
    for (const end of [atLeast, atMost]) {
      const { calls, requests, costUsd, seconds, bytesFetched, bytesPut } = end;
      const sum = Object.values(calls as Record<string, number>).reduce((a, b) => a + b, 0);
      expect(requests).toBe(sum);
      expect(bytesFetched).toBe(calls.GetSnapshotBlock * BLOCK_SIZE);
      expect(bytesPut).toBe(calls.PutSnapshotBlock * BLOCK_SIZE);
      const lists = calls.ListSnapshotBlocks + calls.ListChangedBlocks;
      const dollars = lists * 0.0006 + calls.GetSnapshotBlock * 0.003;
      expect(costUsd).toBeCloseTo((dollars + calls.PutSnapshotBlock * 0.006) / 1000, 9);
      expect(seconds).toBeGreaterThanOrEqual(calls.GetSnapshotBlock / 1000);
      expect(seconds).toBeGreaterThanOrEqual(lists / 50);
    }
    return { atLeast, atMost, spent: told.spent };
  }

  it("of an export is what the export then takes, and makes nothing", async () => {
    rig.endpoint.resetStats();
    const target = rig.scratch.file("estimated-out.img");
    const { atLeast, atMost, spent } = await estimate("export", snapshot, target);
    expect(counts().total.calls).toBe(counts().ListSnapshotBlocks.calls);
    expect(spent.requests).toBe(counts().total.calls);
    expect(readdirSync(rig.scratch.path).filter((name) => name.startsWith("estimated-"))).toEqual(
      [],
    );
    rig.endpoint.resetStats();
    await rig.must(["export", snapshot, target]);
    expect(atLeast).toEqual(atMost);
    expect(counts().ListSnapshotBlocks.calls).toBe(atMost.calls.ListSnapshotBlocks);
    expect(counts().GetSnapshotBlock.calls).toBe(atMost.calls.GetSnapshotBlock);
    expect(counts().total.calls).toBe(atMost.requests);
  });

  it("of an export that was begun leaves out what is there", async () => {
    const target = rig.scratch.file("begun-out.img");
    await rig.run(["export", "--max-requests", "41", snapshot, target]);
    const { atLeast, atMost } = await estimate("export", snapshot, target);
    expect(atMost.calls.GetSnapshotBlock).toBe(60);
    expect(atLeast.calls.GetSnapshotBlock).toBe(20);
    rig.endpoint.resetStats();
    await rig.must(["export", snapshot, target]);
    expect(counts().GetSnapshotBlock.calls).toBe(20);
  });

  it("of a large list counts its pages and tells dollars and time", async () => {
    const { atMost } = await estimate("export", synthetic, "-");
    const blocks = atMost.calls.GetSnapshotBlock;
    expect(blocks).toBeGreaterThan(12_000);
    expect(atMost.calls.ListSnapshotBlocks).toBe(2);
    const text = await rig.must(["export", synthetic, "-", "--estimate"]);
    expect(text).toMatch(
      /^Export of snap-\w+, 64 GiB\n {2}list calls +2\n {2}get calls +1\d{4} \(6/,
    );
    expect(text).toMatch(/cost +about \$0.0\d+, data transfer not included\n/);
    expect(text).toMatch(/time +at least 1\d s, at the service's quota of 1000 gets/);
    expect(text).toMatch(/This estimate itself took 2 requests, about \$0.0000012/);
  });

  it("of a mount is what reading all of it takes; no mount point is needed, nor looked at", async () => {
    rig.endpoint.resetStats();
    const { atMost } = await estimate("mount", snapshot, synthetic);
    const there = await estimate("mount", "--rw", snapshot, "/nowhere/at/all");
    expect(counts().total.calls).toBe(counts().ListSnapshotBlocks.calls);
    expect(there.atMost.calls.GetSnapshotBlock).toBe(60);
    expect(atMost.calls.GetSnapshotBlock).toBeGreaterThan(12_060);
    rig.endpoint.resetStats();
    const place = await rig.mount(["mount", snapshot], "estimated");
    for (const at of [0, 500 * MIB]) {
      const range = ["-i", String(at), "-n", String(21 * MIB)];
      await must("cmp", [...range, image, `${place}/${snapshot}.img`]);
    }
    await rig.must(["unmount", place]);
    expect(counts().GetSnapshotBlock.calls).toBe(60);
    expect(counts().ListSnapshotBlocks.calls).toBe(there.atMost.calls.ListSnapshotBlocks);
  });

  it("of an import is what the import then takes", async () => {
    rig.endpoint.resetStats();
    const { atLeast, atMost } = await estimate("import", image);
    expect(counts().total.calls).toBe(0);
    await rig.import(image);
    expect(atLeast).toEqual(atMost);
    expect(counts().PutSnapshotBlock.calls).toBe(atMost.calls.PutSnapshotBlock);
    expect(counts().total.calls).toBe(atMost.requests);
    const all = await estimate("import", image, "--all-blocks");
    expect(all.atLeast.calls.PutSnapshotBlock).toBe(BLOCKS_PER_GIB);
    const nonzero = await estimate("import", image, "--omit-zero-blocks");
    expect(nonzero.atLeast.calls.PutSnapshotBlock).toBe(0);
    expect(nonzero.atMost.calls.PutSnapshotBlock).toBe(60);
  });

  it("of a child tells the comparison with its parent, and what may have to be put", async () => {
    const child = rig.scratch.file("child.img");
    await must("cp", ["--sparse=always", image, child]);
    await change(child, 2);
    await change(child, 1500);
    const { atLeast, atMost } = await estimate("import", child, "--parent", snapshot);
    expect(atMost.calls).toMatchObject({ GetSnapshotBlock: 60, PutSnapshotBlock: 61 });
    rig.endpoint.resetStats();
    await rig.import(child, "--parent", snapshot);
    expect(counts().PutSnapshotBlock.calls).toBe(2);
    expect(counts().PutSnapshotBlock.calls).toBeGreaterThanOrEqual(atLeast.calls.PutSnapshotBlock);
    expect(counts().GetSnapshotBlock.calls).toBe(60);
    expect(counts().ListSnapshotBlocks.calls).toBe(atMost.calls.ListSnapshotBlocks);
    expect(await rig.must(["import", child, "--parent", snapshot, "--estimate"])).toMatch(
      /put calls +\d+ to 61 \(.* to 30.5 MiB\)\n {2}cost +about \$\S+ to \$0.00055,/,
    );
  });

  it("keeps to limits as well, and is refused where it would say nothing", async () => {
    const limited = await rig.run(["export", synthetic, "-", "--estimate", "--max-requests", "1"]);
    expect(limited).toMatchObject({ status: 1, stdout: "" });
    expect(limited.stderr).toMatch(/--max-requests 1 is reached/);
    for (const [command, told] of [
      [["export", snapshot, "-", "--json"], /--json goes with --estimate/],
      [["mount", "--resume", "one", "/mnt", "--estimate"], /--estimate cannot be used here/],
      [["mount", "--estimate", "/mnt"], /Say what to mount/],
    ] as const) {
      const ran = await rig.run(command);
      expect(ran).toMatchObject({ status: 2, stdout: "" });
      expect(ran.stderr).toMatch(told);
    }
  });
});
