/**
 * The first 4 KiB of a 64 TiB snapshot, from the start of `ebsmount mount` to the bytes: what a user
 * waits who wants one thing out of a huge volume. The peer is a program that lists and gets that one
 * block with the bare SDK, from its start to its end.
 */
import { startEndpoint } from "./lib/endpoint.mjs";
import { interleave, report, rowOf, seconds } from "./lib/report.mjs";
import { bareSdk, mount, must } from "./lib/rig.mjs";

const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 7);
const LATENCY_MS = 30;
const BLOCKS = 64 * 2 ** 21;

const endpoint = await startEndpoint({
  synthetic: ["size=64TiB,written=all,seed=4"],
  latencyMs: LATENCY_MS,
});
const [snapshot] = endpoint.snapshots;
// An offset of its own each round, far from the others: beyond what a list page could hold.
const blockOf = (round) => Math.floor((BLOCKS / (ROUNDS + 1)) * (round + 0.5)) + 77;

const oneBlock = { what: "get", subject: snapshot, count: 1, concurrency: 1 };
const calls = [];
const figures = await interleave(ROUNDS, {
  async ours(round) {
    await endpoint.resetStats();
    let unmount = () => {};
    const time = await seconds(() => {
      const mounted = mount(snapshot);
      unmount = mounted.unmount;
      const skip = `skip=${blockOf(round) * 128}`;
      must("dd", [`if=${mounted.image}`, "of=/dev/null", "bs=4k", "count=1", skip]);
    });
    calls.push((await endpoint.stats()).total.calls);
    unmount();
    return time;
  },
  peer: (round) => seconds(() => bareSdk({ ...oneBlock, first: blockOf(round) })),
});

const peerName = "bare SDK: list, get, end";
const what = `first 4 KiB of 64 TiB from process start, ${LATENCY_MS} ms`;
report("first-read", [
  rowOf({ what, unit: "s", ...figures, peerName, maxFigure: 0.6, inReadme: true }),
  rowOf({ what, unit: "API calls", ours: calls, maxFigure: 3 }),
]);
