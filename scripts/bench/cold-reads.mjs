/**
 * Sequential reads through a mount of blocks that are not here yet, over TLS and over plain HTTP, from an
 * endpoint in its own process that responds after 30 ms. The peers are loops over the bare SDK
 * (lib/bare-sdk.mjs) in a process of their own, started and warmed up before the clock runs. Every run
 * reads blocks that no run has read before. All share this machine's processors, so the processor time
 * that is spent on one block decides.
 */
import { bareGet, CONCURRENCY, readSequentially } from "./lib/contenders.mjs";
import { compareTurns, costOf, interleave, report } from "./lib/report.mjs";
import { mount, statusOf } from "./lib/rig.mjs";
import { startServices, takeTurn } from "./lib/services.mjs";

const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 5);
const BLOCKS = 2 * Number(process.env.BENCH_MOUNT_MIB ?? 2048);
const LATENCY_MS = 30;
const ALONE_BLOCKS = 64;
/** Each turn has a region to itself; the bare SDK reads its second half. */
const REGION_BLOCKS = 32_768;

const { endpoint, tls, plain } = await startServices({
  synthetic: ["size=8TiB,written=all,seed=2"],
  latencyMs: LATENCY_MS,
});
const [snapshot] = endpoint.snapshots;
let regions = 0;
const nextRegion = () => {
  regions += 1;
  return regions * REGION_BLOCKS;
};

/** @returns the two contenders on a service, as functions that take a turn. */
async function contendersOn(service) {
  const { image, place } = mount(snapshot, "--endpoint-url", service.url);
  const mounted = { image, pid: statusOf(place).pid };
  const readMount = () =>
    takeTurn(service, "mount", () => readSequentially(service, mounted, nextRegion(), BLOCKS));
  const readBare = () =>
    takeTurn(service, "bare SDK", () =>
      bareGet(service, snapshot, nextRegion() + REGION_BLOCKS / 2, BLOCKS),
    );
  await readMount();
  return { readMount, readBare };
}

const onTls = await contendersOn(tls);
const onPlain = await contendersOn(plain);
const turns = await interleave(ROUNDS, {
  tlsMount: onTls.readMount,
  tlsBare: onTls.readBare,
  plainMount: onPlain.readMount,
  plainBare: onPlain.readBare,
  plainAlone: () =>
    takeTurn(plain, "bare SDK, one at a time", () =>
      bareGet(plain, snapshot, nextRegion(), ALONE_BLOCKS, 1),
    ),
});

const what = ({ name }) => `cold sequential through the mount over ${name}, ${LATENCY_MS} ms`;
const SDK = `bare SDK, ${CONCURRENCY} at a time`;
const rows = [
  ...compareTurns({
    what: what(tls),
    ours: turns.tlsMount,
    peer: turns.tlsBare,
    peerName: SDK,
    rate: { minRatio: 1.3, inReadme: true },
    cost: { maxRatio: 0.6, inReadme: true },
  }),
  ...compareTurns({
    what: what(plain),
    ours: turns.plainMount,
    peer: turns.plainBare,
    peerName: SDK,
    rate: { minRatio: 0.85 },
    cost: {},
  }),
  ...compareTurns({
    what: what(plain),
    ours: turns.plainMount,
    peer: turns.plainAlone,
    peerName: "bare SDK, one at a time",
    rate: { minRatio: 20 },
  }),
];
report("cold-reads", rows, [
  costOf("mount, sequential", tls, turns.tlsMount),
  costOf(SDK, tls, turns.tlsBare),
  costOf("mount, sequential", plain, turns.plainMount),
  costOf(SDK, plain, turns.plainBare),
]);
