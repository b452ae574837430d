/**
 * Writing: a database's pattern on ext4 on a loop device over the mount, against the same over
 * qemu-storage-daemon's writable FUSE export of a raw file; and what unmount has to do, against a loop
 * that puts the same blocks with the bare SDK, from a file that was written just before as the mounted
 * one was (in a virtual machine, what was written before decides how fast the kernel finds memory).
 * Background upload is off: it would run into the peer's turns, and leave the commit nothing to do.
 */
import { rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { startEndpoint } from "./lib/endpoint.mjs";
import { fillWithRandom } from "./lib/random-file.mjs";
import { interleave, report, rowOf, seconds } from "./lib/report.mjs";
import {
  attachLoop,
  BLOCK_SIZE,
  bareSdk,
  create,
  fio,
  MIB,
  mount,
  mountFileSystem,
  must,
  qemuExport,
  scratch,
} from "./lib/rig.mjs";

const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 5);
const COMMIT_ROUNDS = Math.min(3, ROUNDS);
const CONCURRENCY = 64;
const GIB = Number(process.env.BENCH_COMMIT_GIB ?? 4);
const BLOCKS = (GIB * 1024 * MIB) / BLOCK_SIZE;

const endpoint = await startEndpoint({ synthetic: ["size=8GiB,written=all,seed=7"] });
const [base] = endpoint.snapshots;

async function overwrites() {
  const raw = join(scratch, "raw.img");
  writeFileSync(raw, "");
  truncateSync(raw, 8192 * MIB);
  const mounted = mount(base, "--rw", "--no-writeback");
  const peer = await qemuExport(raw, { writable: true });
  const undo = [mounted.unmount, peer.stop];
  const diskOn = (image) => {
    const { loop, detach } = attachLoop(image);
    must("mkfs.ext4", ["-q", loop]);
    const disk = mountFileSystem(loop);
    undo.unshift(disk.unmount, detach);
    const file = join(disk.place, "data");
    const job = [`--filename=${file}`, "--bs=4k", "--size=512M", "--ioengine=psync"];
    fio([...job, "--rw=write", "--bs=1M", "--end_fsync=1"]);
    return () =>
      fio([...job, "--rw=randwrite", "--fsync=32", "--time_based", "--runtime=6"]).write.iops;
  };
  const figures = await interleave(ROUNDS, {
    ours: diskOn(mounted.image),
    peer: diskOn(peer.image),
  });
  for (const action of undo) action();
  return rowOf({
    what: "4 KiB random writes, fsync each 32, ext4 on a loop device",
    unit: "IOPS",
    ...figures,
    peerName: "qemu-storage-daemon",
    minRatio: 0.7,
    inReadme: true,
  });
}

/** Fills a fresh mount, and times its unmount. @returns MiB/s. */
async function commitRate(mountIt) {
  const { image, unmount } = mountIt();
  fillWithRandom(image, "r+", GIB);
  let snapshot = "";
  const time = await seconds(() => {
    snapshot = unmount();
  });
  await endpoint.remove(snapshot);
  return (GIB * 1024) / time;
}

async function putRate() {
  const file = join(scratch, "blocks");
  fillWithRandom(file, "w", GIB);
  const count = BLOCKS - CONCURRENCY;
  const numbers = { first: 0, count, concurrency: CONCURRENCY, warmUp: CONCURRENCY };
  const { seconds: time } = await bareSdk({ what: "put", subject: file, ...numbers });
  rmSync(file);
  await endpoint.removePending();
  return count / 2 / time;
}

const rows = [await overwrites()];
const commits = await interleave(COMMIT_ROUNDS, {
  blank: () => commitRate(() => create("--size", `${GIB}GiB`, "--no-writeback")),
  over: () => commitRate(() => mount(base, "--rw", "--no-writeback")),
  bare: putRate,
});
const peer = {
  peer: commits.bare,
  peerName: `bare SDK puts, ${CONCURRENCY} at a time`,
  minRatio: 0.85,
};
rows.push(
  rowOf({
    what: `commit of ${GIB} GiB on a blank volume, 0 ms, from unmount to its end`,
    unit: "MiB/s",
    ours: commits.blank,
    ...peer,
  }),
  rowOf({
    what: `commit of ${GIB} GiB over written blocks, 0 ms, each compared with its base`,
    unit: "MiB/s",
    ours: commits.over,
    ...peer,
    minRatio: undefined,
  }),
);
report("writes", rows);
