/**
 * The local endpoint (`ebsmount serve`) in a process of its own, and its admin path. The command line
 * and the SDK find it by the environment that the rig gives to each process.
 */
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { CLI, env, scratch, startProcess, until } from "./rig.mjs";

/**
 * @param options.synthetic specifications of computed snapshots.
 * @param options.latencyMs before each response.
 * @returns its URL and process id, the synthetic snapshots' ids, and its admin operations.
 */
export async function startEndpoint({ synthetic = [], latencyMs = 0 } = {}) {
  const log = join(scratch, "serve.log");
  const store = join(scratch, "store");
  const args = synthetic.flatMap((spec) => ["--synthetic", spec]);
  const { pid } = startProcess(process.execPath, [CLI, "serve", "--store", store, ...args], log);
  const said = await until("the endpoint listens", () => {
    const lines = readFileSync(log, "utf8");
    return lines.split("Synthetic").length > synthetic.length && lines;
  });
  const url = said.match(/http:\/\/[0-9.:]+/)[0];
  env.EBSMOUNT_ENDPOINT_URL = url;
  env.AWS_ENDPOINT_URL_EBS = url;
  const admin = (method, path, body) => askAdmin(`${url}/_ebsmount/${path}`, method, body);
  const endpoint = {
    url,
    pid,
    snapshots: [...said.matchAll(/snap-[0-9a-f]+/g)].map(([id]) => id),
    async setLatency(ms) {
      await admin("DELETE", "faults");
      if (ms > 0) await admin("POST", "faults", [{ action: "latency", ms }]);
    },
    /** Since the last reset: operation (and `total`) → calls, bytesOut and more. */
    async stats() {
      return (await admin("GET", "stats")).operations;
    },
    /** The snapshots there are, as { snapshotId, status, … }. */
    async list() {
      return (await admin("GET", "stats")).snapshots;
    },
    resetStats: () => admin("DELETE", "stats"),
    remove: (snapshotId) => admin("DELETE", `snapshots/${snapshotId}`),
    /** Removes what a loop over the bare SDK has put and never completes. */
    async removePending() {
      for (const { snapshotId, status } of await endpoint.list()) {
        if (status === "pending") await endpoint.remove(snapshotId);
      }
    },
  };
  await endpoint.setLatency(latencyMs);
  return endpoint;
}

/**
 * One request to the endpoint's admin path. On a connection of its own: this process stands still
 * while it waits for a command, and would not see that the server has closed one that it kept.
 */
async function askAdmin(url, method, body) {
  const sent = request(url, { method, agent: false });
  sent.end(body && JSON.stringify(body));
  const [response] = await once(sent, "response");
  const value = JSON.parse(await text(response));
  if (response.statusCode >= 300) throw new Error(`${method} ${url}: ${value.error}`);
  return value;
}
