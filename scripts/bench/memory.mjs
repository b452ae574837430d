/**
 * The resident memory of a mount while 50 GiB of a fully written 64 TiB snapshot are read at random
 * offsets: nothing may grow with the volume, or with what was read. There is no peer: the goal is the
 * cache's size and 200 MiB, and that the second half of the way adds nothing to the first.
 */
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { startEndpoint } from "./lib/endpoint.mjs";
import { report, rowOf } from "./lib/report.mjs";
import { MIB, mount, mustAsync, statusOf } from "./lib/rig.mjs";

const GIB_READ = Number(process.env.BENCH_MEMORY_GIB ?? 50);
const CACHE_MIB = 256;
const GROWTH_MIB = 16;

const { snapshots } = await startEndpoint({ synthetic: ["size=64TiB,written=all,seed=6"] });
const { image, place } = mount(snapshots[0], "--cache-size", `${CACHE_MIB}MiB`);
const { pid } = statusOf(place);
const resident = () =>
  Number(readFileSync(`/proc/${pid}/status`, "utf8").match(/VmRSS:\s+(\d+)/)[1]) / 1024;

const samples = [];
let reading = true;
const reader = mustAsync(
  "fio",
  [
    "--name=bench",
    `--filename=${image}`,
    "--readonly",
    "--rw=randread",
    "--bs=512k",
    "--size=64T",
    `--io_size=${GIB_READ}G`,
    "--norandommap",
    "--direct=1",
    "--ioengine=libaio",
    "--iodepth=32",
    "--output-format=json",
  ],
  { limitMs: 1_200_000 },
).finally(() => {
  reading = false;
});
while (reading) {
  samples.push(resident());
  await sleep(250);
}
const out = await reader;
const read = JSON.parse(out.slice(out.indexOf("{"))).jobs[0].read;
const half = samples.length >> 1;
const most = (from, to) => Math.max(...samples.slice(from, to));
const what = `${GIB_READ} GiB at random offsets of 64 TiB, cache ${CACHE_MIB} MiB`;
report("memory", [
  rowOf({
    what: `resident, most: ${what}`,
    unit: "MiB",
    ours: [most(0)],
    maxFigure: CACHE_MIB + 200,
    inReadme: true,
  }),
  rowOf({
    what: "growth of that in the second half",
    unit: "MiB",
    ours: [most(half) - most(half >> 1, half)],
    maxFigure: GROWTH_MIB,
  }),
  rowOf({ what: `rate: ${what}`, unit: "MiB/s", ours: [read.bw_bytes / MIB] }),
]);
