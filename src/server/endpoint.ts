/**
 * The local endpoint: the six EBS direct operations over plain HTTP on a folder. It is one thread
 * of node:http; a get is a lookup and a pread, a put is a hash and a write, both by libuv's pool, so
 * what one thread does for a block is little more than its HTTP.
 */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Failure } from "../common/failure.js";
import { sharedAbort } from "../common/shared-abort.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import { ADMIN_PATH, handleAdmin } from "./admin.js";
import { BlockBuffers } from "./block-buffers.js";
import type { Answer, Call } from "./call.js";
import type { FaultRule } from "./fault-rule.js";
import { Faults } from "./faults.js";
import { createHandler } from "./http-handler.js";
import { LIKE_AWS, type LikeAws } from "./like-aws.js";
import {
  getSnapshotBlock,
  listChangedBlocks,
  listSnapshotBlocks,
  type ReadContext,
} from "./read-operations.js";
import type { Credentials } from "./signature.js";
import { Stats } from "./stats.js";
import { type EndpointStats, summarize } from "./stats-report.js";
import { Store } from "./store.js";
import type { SyntheticSpec } from "./synthetic.js";
import { TokenIssuer } from "./token.js";
import { Views } from "./views.js";
import { sendVolume } from "./volume-view.js";
import { completeSnapshot, putSnapshotBlock, startSnapshot } from "./write-operations.js";

/** Connections at a time; each can hold one block in memory. */
const MAX_CONNECTIONS = 1024;
const KEEP_ALIVE_MS = 120_000;

export interface EndpointOptions {
  /** The folder; made if missing. */
  readonly store: string;
  /** Any free one unless given. */
  readonly port?: number;
  /** 127.0.0.1 unless given. */
  readonly host?: string;
  /** Checked where given; any signature, or none, is accepted otherwise. */
  readonly credentials?: Credentials;
  readonly faults?: readonly FaultRule[];
  /** With the real service's habits (like-aws.ts), for as long as the endpoint runs. */
  readonly likeAws?: boolean;
  /** Acknowledge only what is on the disk: safe from power loss, not only from kill -9. */
  readonly sync?: boolean;
  /**
   * How long a completed snapshot stays pending, ms; with 0 CompleteSnapshot says `completed`. Unless
   * given it says `pending`, as the service does, and the snapshot is completed right after.
   */
  readonly completionDelayMs?: number;
  /** How long block tokens live, ms; 7 days unless given. */
  readonly blockTokenLifeMs?: number;
  /** How long page tokens live, ms; 60 minutes unless given. */
  readonly pageTokenLifeMs?: number;
  /** What a minute of a pending snapshot's Timeout lasts, ms; 60,000 unless given. */
  readonly minuteMs?: number;
  /** Snapshots pending at a time; 100 unless given. */
  readonly maxPending?: number;
  /** Told of defects; standard error unless given. */
  readonly log?: (message: string) => void;
}

export interface Endpoint {
  /** http://127.0.0.1:PORT */
  readonly url: string;
  readonly faults: Faults;
  stats(): EndpointStats;
  resetStats(): void;
  createSynthetic(spec: SyntheticSpec): SnapshotId;
  /** The snapshot is gone for its users; children keep what they inherit. */
  removeSnapshot(snapshotId: string): void;
  /** Ends open connections and lets go of the folder. */
  close(): Promise<void>;
}

/** @throws Failure where the folder cannot be used or the port is taken. */
export async function startEndpoint(options: EndpointOptions): Promise<Endpoint> {
  const log = options.log ?? ((message) => console.error(message));
  const like: Partial<LikeAws> = options.likeAws ? LIKE_AWS : {};
  const store = new Store({
    folder: options.store,
    sync: options.sync ?? false,
    minuteMs: options.minuteMs ?? 60_000,
    completionDelayMs: options.completionDelayMs ?? like.completionDelayMs,
    maxPending: options.maxPending ?? like.maxPending ?? 100,
    log,
  });
  const views = new Views(store);
  const buffers = new BlockBuffers();
  const faults = new Faults({
    habits: like.habits ?? [],
    lookUp: (snapshotId) => store.find(snapshotId),
  });
  const stats = new Stats();
  faults.add(...(options.faults ?? []));
  const context: ReadContext = {
    store,
    views,
    buffers,
    tokens: new TokenIssuer(store.secret),
    blockTokenLife: options.blockTokenLifeMs ?? 7 * 24 * 3600_000,
    pageTokenLife: options.pageTokenLifeMs ?? 3600_000,
  };
  const closing = sharedAbort();
  const handle = createHandler({
    run: (call) => run(context, call),
    faults,
    stats,
    buffers,
    credentials: options.credentials,
    closing: closing.signal,
    log,
  });
  const endpoint = {
    faults,
    stats: () => ({ operations: stats.table(), snapshots: summarize(store) }),
    resetStats: () => stats.reset(),
    createSynthetic: (spec: SyntheticSpec) => store.createSynthetic(spec),
    removeSnapshot: (snapshotId: string) => {
      for (const gone of store.remove(snapshotId)) views.forget(gone);
    },
  };
  const admin = {
    ...endpoint,
    sendVolume: (request: IncomingMessage, response: ServerResponse) =>
      sendVolume({ store, views, log }, request, response),
  };
  const underWay = new Set<Promise<void>>();
  const server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS }, (request, response) => {
    const work = request.url?.startsWith(ADMIN_PATH)
      ? handleAdmin(request, response, admin)
      : handle(request, response);
    underWay.add(work);
    work
      .catch((error: unknown) => {
        log(`A request failed: ${(error as Error).stack}`);
        response.destroy();
      })
      .finally(() => underWay.delete(work))
      .catch(() => {});
  });
  server.maxConnections = MAX_CONNECTIONS;
  try {
    await listen(server, options.port ?? 0, options.host ?? "127.0.0.1");
  } catch (error) {
    store.close();
    throw error;
  }
  const { address, family, port } = server.address() as AddressInfo;
  return {
    ...endpoint,
    url: `http://${family === "IPv6" ? `[${address}]` : address}:${port}`,
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      closing.abort();
      server.closeAllConnections();
      await closed;
      await Promise.allSettled(underWay);
      views.close();
      store.close();
    },
  };
}

function run(context: ReadContext, call: Call): Answer | Promise<Answer> {
  switch (call.operation) {
    case "StartSnapshot":
      return startSnapshot(context.store, call);
    case "PutSnapshotBlock":
      return putSnapshotBlock(context.store, call);
    case "CompleteSnapshot":
      return completeSnapshot(context.store, call);
    case "ListSnapshotBlocks":
      return listSnapshotBlocks(context, call);
    case "ListChangedBlocks":
      return listChangedBlocks(context, call);
    case "GetSnapshotBlock":
      return getSnapshotBlock(context, call);
  }
}

function listen(server: Server, port: number, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (cause: NodeJS.ErrnoException) => {
      const why =
        cause.code === "EADDRINUSE"
          ? "another program is using it; choose another --port"
          : cause.message;
      reject(new Failure("EBUSY", `Cannot listen on ${host} port ${port}: ${why}.`, { cause }));
    });
    server.listen(port, host, () => resolve());
  });
}
