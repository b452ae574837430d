/**
 * The two ways to one endpoint, TLS and plain HTTP, and a contender's turn on one of them: its rate, its
 * processor time, and beside that the processor time of the endpoint and of the TLS proxy, which share
 * this machine with it and are counted to no contender.
 */
import { startEndpoint } from "./endpoint.mjs";
import { processorTime } from "./processor-time.mjs";
import { must, scratch } from "./rig.mjs";
import { startTlsProxy } from "./tls-proxy.mjs";

/** Blocks of 512 KiB in a GiB. */
export const BLOCKS_PER_GIB = 2048;

/**
 * @param options as of startEndpoint.
 * @returns { endpoint, tls, plain }; what starts from now on trusts the proxy's certificate.
 */
export async function startServices(options) {
  const endpoint = await startEndpoint(options);
  const proxy = await startTlsProxy(endpoint.url);
  return {
    endpoint,
    tls: { name: "TLS", url: proxy.url, endpoint, proxy },
    plain: { name: "plain HTTP", url: endpoint.url, endpoint },
  };
}

/**
 * Measures one turn.
 * @param work gives { blocks, seconds, processorSeconds, costBlocks?, threadSeconds?, cleanUp? }: what it
 * moved and how long that took; the blocks that the processor time was for, unless the same; its threads,
 * busiest first; what to do after the turn.
 * @returns { rate: MiB/s; cost, endpoint, proxy: ms of processor time a block; threads: each one's share of
 * the elapsed time }. @throws where the endpoint saw fewer blocks, because then contenders did not do the same.
 */
export async function takeTurn({ name, endpoint, proxy }, contender, work) {
  // Else the kernel writes back during this turn what the one before has left in memory.
  must("sync", ["-f", scratch]);
  await endpoint.resetStats();
  const before = [processorTime(endpoint.pid), proxy && processorTime(proxy.pid)];
  const done = await work();
  const after = [processorTime(endpoint.pid), proxy && processorTime(proxy.pid)];
  const calls = await blockCalls(endpoint);
  if (calls < done.blocks) {
    throw new Error(
      `${contender} over ${name}: ${calls} block requests for ${done.blocks} blocks.`,
    );
  }
  const turn = {
    rate: done.blocks / 2 / done.seconds,
    cost: (done.processorSeconds * 1000) / (done.costBlocks ?? done.blocks),
    endpoint: ((after[0] - before[0]) * 1000) / calls,
    proxy: proxy && ((after[1] - before[1]) * 1000) / calls,
    threads: done.threadSeconds?.map((seconds) => seconds / done.seconds),
  };
  await done.cleanUp?.();
  const figures = `${turn.rate.toFixed(0)} MiB/s, ${turn.cost.toFixed(2)} ms a block`;
  console.error(`${contender} over ${name}: ${figures}`);
  return turn;
}

/** Requests for blocks, both ways, since the endpoint's last reset. */
export async function blockCalls(endpoint) {
  const { GetSnapshotBlock, PutSnapshotBlock } = await endpoint.stats();
  return (GetSnapshotBlock?.calls ?? 0) + (PutSnapshotBlock?.calls ?? 0);
}
