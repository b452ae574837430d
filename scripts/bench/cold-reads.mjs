/**
 * Reads of blocks that are not here yet, from an endpoint in its own process that answers 30 ms after
 * it was asked. The peers are loops over the bare SDK (lib/bare-sdk.mjs) in a process of their own,
 * started and warmed up before the clock runs. Every run reads blocks that nobody has read before.
 * Endpoint and reader share this machine's processors, so what is spent on one block decides.
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { interleave, report, rowOf, seconds } from "./lib/report.mjs";
import { bareSdk, CLI, mount, must, mustAsync, scratch, startEndpoint } from "./lib/rig.mjs";

const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 5);
const CONCURRENCY = 64;
const LATENCY_MS = 30;
const BLOCKS = 1024;
const WARM_UP = 256;
const ALONE = 64;
const EXPORT_GIB = 4;

const { snapshots } = await startEndpoint({
  synthetic: ["size=1TiB,written=all,seed=2", `size=${EXPORT_GIB}GiB,written=all,seed=3`],
  latencyMs: LATENCY_MS,
});
const [large, small] = snapshots;

/** MiB/s of `count` blocks by the bare SDK. */
async function bare(snapshot, first, count, concurrency, warmUp) {
  return count / 2 / (await bareSdk("get", snapshot, first, count, concurrency, warmUp));
}

const { image } = mount(large);
/** MiB/s of a sequential reader with the kernel's page cache, as dd reads. */
function sequential(first, count) {
  const args = ["bs=1M", `skip=${first / 2}`, `count=${count / 2}`];
  const start = performance.now();
  must("dd", [`if=${image}`, "of=/dev/null", "status=none", ...args]);
  return count / 2 / ((performance.now() - start) / 1000);
}

const regionOf = (round) => (round + 1) * 16_384;
sequential(0, BLOCKS);
const reads = await interleave(ROUNDS, {
  mount: (round) => sequential(regionOf(round), BLOCKS),
  bare: (round) => bare(large, regionOf(round) + 8192, BLOCKS, CONCURRENCY, WARM_UP),
  alone: (round) => bare(large, regionOf(round) + 12_288, ALONE, 1, 8),
});
const rows = [
  rowOf({
    what: `cold sequential through the mount, ${LATENCY_MS} ms`,
    unit: "MiB/s",
    ours: reads.mount,
    peer: reads.bare,
    peerName: `bare SDK, ${CONCURRENCY} at a time`,
    atLeast: 0.85,
  }),
  rowOf({
    what: `cold sequential through the mount, ${LATENCY_MS} ms`,
    unit: "MiB/s",
    ours: reads.mount,
    peer: reads.alone,
    peerName: "bare SDK, one at a time",
    atLeast: 20,
  }),
];

const target = join(scratch, "export.img");
const whole = EXPORT_GIB * 2048;
const exports = await interleave(3, {
  ours: async () => {
    const time = await seconds(() => mustAsync(process.execPath, [CLI, "export", small, target]));
    rmSync(target);
    return whole / 2 / time;
  },
  peer: () => bare(small, 0, whole - WARM_UP, CONCURRENCY, WARM_UP),
});
rows.push(
  rowOf({
    what: `export of ${EXPORT_GIB} GiB, ${LATENCY_MS} ms, with start and disk`,
    unit: "MiB/s",
    ...exports,
    peerName: `bare SDK, ${CONCURRENCY} at a time`,
    atLeast: 0.95,
  }),
);
report("cold-reads", rows);
