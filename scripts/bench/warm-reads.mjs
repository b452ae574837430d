/**
 * Reads of blocks that are here already: our block cache is full of them, the peer's file is in the
 * page cache. What is measured is the way from the kernel to the bytes and back. The page cache of
 * the mounted file itself is dropped before each run (fio's invalidate), and direct I/O passes it.
 */
import { join } from "node:path";
import { startEndpoint } from "./lib/endpoint.mjs";
import { interleave, report, rowOf } from "./lib/report.mjs";
import { ebsmount, fio, MIB, mount, must, qemuExport, scratch } from "./lib/rig.mjs";

const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 5);
const QEMU = "qemu-storage-daemon";

const { snapshots } = await startEndpoint({ synthetic: ["size=1GiB,written=all,seed=1"] });
const [snapshot] = snapshots;
const raw = join(scratch, "raw.img");
ebsmount("export", snapshot, raw);
const kernel = mount(snapshot, "--cache-size", "1200MiB").image;
const libfuse = mount(snapshot, "--cache-size", "1200MiB", "--fuse-driver", "libfuse").image;
const qemu = (await qemuExport(raw)).image;
for (const image of [kernel, libfuse, qemu]) must("cmp", [raw, image]);

const sequential = (image, direct) =>
  fio([
    `--filename=${image}`,
    "--readonly",
    "--rw=read",
    "--bs=1M",
    "--size=1G",
    "--ioengine=psync",
    `--direct=${direct}`,
  ]).read.bw_bytes / MIB;
const random = (image, depth) =>
  fio([
    `--filename=${image}`,
    "--readonly",
    "--rw=randread",
    "--bs=4k",
    "--size=1G",
    "--direct=1",
    "--time_based",
    "--runtime=2",
    ...(depth === 1 ? ["--ioengine=psync"] : ["--ioengine=libaio", `--iodepth=${depth}`]),
  ]).read.iops;

const rows = [];
const compare = async (what, unit, measure, minRatio, inReadme) => {
  const figures = await interleave(ROUNDS, {
    ours: () => measure(kernel),
    peer: () => measure(qemu),
  });
  rows.push(rowOf({ what, unit, ...figures, peerName: QEMU, minRatio, inReadme }));
};
await compare(
  "warm sequential 1 MiB, buffered",
  "MiB/s",
  (image) => sequential(image, 0),
  1.5,
  true,
);
await compare("warm sequential 1 MiB, direct", "MiB/s", (image) => sequential(image, 1), 2);
await compare("warm random 4 KiB direct, qd 1", "IOPS", (image) => random(image, 1), 0.9, true);
await compare("warm random 4 KiB direct, qd 8", "IOPS", (image) => random(image, 8), 0.9);
const drivers = await interleave(3, {
  ours: () => random(kernel, 8),
  peer: () => random(libfuse, 8),
});
rows.push(
  rowOf({
    what: "warm random 4 KiB direct, qd 8",
    unit: "IOPS",
    ...drivers,
    peerName: "our fuse-native driver",
    minRatio: 10,
  }),
);
report("warm-reads", rows);
