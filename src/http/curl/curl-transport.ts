/**
 * The transport over libcurl: one multi handle, whose connections are kept, and as many easy handles as
 * requests are under way. A request beyond the limit of connections waits in line here.
 *
 * A transfer is taken out of the multi handle before its request settles; after that libcurl neither writes
 * into its target nor reads its body. Host names are looked up by Node (resolver.ts) and handed over, because
 * libcurl waits for its own look-up threads when a transfer is taken out.
 */
import { sharedAbort } from "../../common/shared-abort.js";
import { checkRequest, type Target } from "../check-request.js";
import { abortError, HttpError } from "../http-error.js";
import { type ProxyRoute, proxyFor } from "../proxies.js";
import { forgetHost } from "../resolver.js";
import type { HttpRequest, HttpResponse, HttpTransport, TransportSettings } from "../transport.js";
import { ConnectionWatch } from "./connection-watch.js";
import { CODE, MULTI_OPTION } from "./constants.js";
import { bodyTooLong, stallError } from "./curl-error.js";
import type { FixedOptions } from "./easy-options.js";
import {
  CA_CACHE_VERSION,
  type CLibrary,
  type CurlLibrary,
  loadCLibrary,
  type Pointer,
} from "./library.js";
import { type Loop, MultiLoop } from "./multi-loop.js";
import { type Route, routeTo } from "./route.js";
import { Transfer } from "./transfer.js";
import { trustFile } from "./trust-file.js";
import { makeWakeHandle, type WakeHandle } from "./wake.js";

/** How often progress is looked at, ms; sooner for short stall limits. */
const MAX_CHECK_MS = 250;
/** Longer between two checks than this, the process stood still (a suspended machine, a stopped process), ms. */
const STANDSTILL_MS = 2_000;

/**
 * Requests that may be under way at first; each success allows one more, up to the limit. So connections are
 * opened as the load asks for them: over TLS each costs 2 ms of processor time, and 34 ms in a libcurl
 * without a cache for its CA bundle (before 7.87).
 */
const FIRST_REQUESTS = 8;
const FIRST_REQUESTS_WITHOUT_CA_CACHE = 2;

interface Job {
  readonly request: HttpRequest;
  readonly route: Route;
  resolve(response: HttpResponse): void;
  reject(error: unknown): void;
  /** Where it is under way. */
  transfer: Transfer | undefined;
  progress: number;
  movedAt: number;
  /** What its connection had sent before. */
  sentBefore: number;
}

export class CurlTransport implements HttpTransport {
  readonly description: string;
  /** Where this thread only sends requests: what wakes it after a message was posted. */
  readonly wakeHandle: WakeHandle | undefined;
  readonly #curl: CurlLibrary;
  readonly #c: CLibrary;
  readonly #settings: TransportSettings;
  readonly #multi: Pointer;
  readonly #loop: MultiLoop;
  readonly #options: FixedOptions;
  readonly #watch: ConnectionWatch;
  readonly #idle: Transfer[] = [];
  /** By the easy handle's address. */
  readonly #active = new Map<Pointer, Job>();
  readonly #waiting = new Set<Job>();
  readonly #closing = sharedAbort();
  #lookUps = 0;
  #handles = 0;
  #allowed: number;
  #checkedAt = performance.now();
  /** A quarter of the shortest stall limit so far, at most MAX_CHECK_MS. */
  #checkMs = MAX_CHECK_MS;
  #isClosed = false;

  /** @param ownsThread this thread does nothing but send requests, and may wait inside libcurl. */
  constructor(curl: CurlLibrary, settings: TransportSettings, ownsThread: boolean) {
    this.#curl = curl;
    this.#c = loadCLibrary();
    this.#settings = settings;
    this.description = describeCurl(curl.version);
    const first =
      curl.versionNumber < CA_CACHE_VERSION ? FIRST_REQUESTS_WITHOUT_CA_CACHE : FIRST_REQUESTS;
    this.#allowed = Math.min(first, settings.maxConnections);
    this.#watch = new ConnectionWatch(this.#c);
    this.#options = {
      onSocket: curl.onSocket((descriptor, handle) => this.#watch.opened(descriptor, handle)),
      onClose: curl.onClose((descriptor) => {
        this.#watch.closed(descriptor);
        this.#c.close(descriptor);
      }),
      caFile: trustFile(settings.trust, this.#c),
    };
    this.#multi = curl.multiInit();
    curl.setMultiLong(this.#multi, MULTI_OPTION.PIPELINING, 0);
    const { maxConnections } = settings;
    curl.setMultiLong(this.#multi, MULTI_OPTION.MAXCONNECTS, maxConnections);
    curl.setMultiLong(this.#multi, MULTI_OPTION.MAX_TOTAL_CONNECTIONS, maxConnections);
    this.wakeHandle = ownsThread ? makeWakeHandle(this.#multi) : undefined;
    const own = this;
    const loop: Loop = {
      get active() {
        return own.#active.size;
      },
      get isWaitingOutside() {
        return own.#lookUps > 0;
      },
      harvest: () => this.#harvest(),
      tick: () => this.#check(),
    };
    this.#loop = new MultiLoop(curl, this.#multi, loop, this.wakeHandle);
  }

  async send(request: HttpRequest, signal?: AbortSignal): Promise<HttpResponse> {
    const target = checkRequest(request);
    const proxy = proxyFor(request.url, this.#settings.proxies);
    if (signal?.aborted) throw abortError("aborted", target.label);
    if (this.#isClosed) throw abortError("closed", target.label);
    const route = await this.#routeTo(target, proxy, request.stallMs, signal);
    if (this.#isClosed) throw abortError("closed", target.label);
    if (signal?.aborted) throw abortError("aborted", target.label);
    return await new Promise((resolve, reject) => {
      const job: Job = {
        request,
        route,
        resolve: (response) => {
          signal?.removeEventListener("abort", abort);
          resolve(response);
        },
        reject: (error) => {
          signal?.removeEventListener("abort", abort);
          reject(error);
        },
        transfer: undefined,
        progress: 0,
        movedAt: 0,
        sentBefore: 0,
      };
      const abort = () => this.#giveUp(job, abortError("aborted", target.label));
      signal?.addEventListener("abort", abort, { once: true });
      this.#waiting.add(job);
      this.#startWaiting();
    });
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#closing.abort();
    for (const job of [...this.#waiting, ...this.#active.values()]) {
      this.#giveUp(job, abortError("closed", job.route.host));
    }
    for (const transfer of this.#idle.splice(0)) transfer.close();
    this.#curl.multiCleanup(this.#multi);
    this.#curl.releaseCallback(this.#options.onSocket);
    this.#curl.releaseCallback(this.#options.onClose);
  }

  async #routeTo(
    target: Target,
    proxy: ProxyRoute | undefined,
    limitMs: number,
    signal: AbortSignal | undefined,
  ): Promise<Route> {
    this.#lookUps += 1;
    try {
      const closing = this.#closing.signal;
      const stop = () => (signal === undefined ? closing : AbortSignal.any([signal, closing]));
      return await routeTo(target, proxy, limitMs, stop);
    } catch (error) {
      if (this.#isClosed) throw abortError("closed", target.label);
      throw error;
    } finally {
      this.#lookUps -= 1;
    }
  }

  #startWaiting(): void {
    if (this.#isClosed || this.#waiting.size === 0) return;
    for (const job of this.#waiting) {
      if (this.#active.size >= this.#allowed) return;
      this.#waiting.delete(job);
      this.#start(job);
    }
  }

  #start(job: Job): void {
    const transfer = this.#idle.pop() ?? this.#makeTransfer();
    this.#watch.check(transfer.number);
    try {
      transfer.begin(job.request);
      transfer.route.set(job.route);
    } catch (error) {
      this.#rest(transfer);
      job.reject(error);
      return;
    }
    job.transfer = transfer;
    job.movedAt = performance.now();
    if (job.request.body !== undefined) {
      job.sentBefore = this.#watch.progressOf(transfer.number).sent;
    }
    this.#checkMs = Math.min(this.#checkMs, job.request.stallMs / 4);
    if (this.#active.size === 0) this.#checkedAt = job.movedAt;
    this.#active.set(transfer.easy, job);
    this.#curl.addHandle(this.#multi, transfer.easy);
    this.#loop.run();
  }

  #makeTransfer(): Transfer {
    this.#handles += 1;
    return new Transfer(this.#curl, this.#c, this.#options, this.#handles);
  }

  #harvest(): number {
    let count = 0;
    for (;;) {
      const finished = this.#curl.nextFinished(this.#multi);
      if (finished === undefined) break;
      const job = this.#active.get(finished.easy);
      if (job === undefined) continue;
      count += 1;
      this.#finish(job, finished.code);
    }
    if (count > 0) this.#startWaiting();
    return count;
  }

  #finish(job: Job, code: number): void {
    const { host, proxy, name, isTunnelled } = job.route;
    const isOwn = job.transfer?.route.isOwn(job.route) === true;
    // Known only as long as the transfer is libcurl's.
    const { socket } = job.transfer as Transfer;
    const transfer = this.#detach(job);
    try {
      const response = transfer.result(code, { host, proxy: proxy?.label, isTunnelled });
      if (this.#allowed < this.#settings.maxConnections) this.#allowed += 1;
      if (socket >= 0 && isOwn) this.#watch.rests(transfer.number, socket);
      job.resolve(response);
    } catch (error) {
      // libcurl may keep the connection of a response that is none for us.
      if (socket >= 0 && isOwn) this.#watch.discard(socket);
      if (error instanceof HttpError && error.kind === "unreachable" && name !== undefined) {
        forgetHost(name);
      }
      job.reject(error);
    }
    this.#rest(transfer);
  }

  /** After it, libcurl touches nothing of the job's. */
  #detach(job: Job): Transfer {
    const transfer = job.transfer as Transfer;
    this.#active.delete(transfer.easy);
    this.#curl.removeHandle(this.#multi, transfer.easy);
    return transfer;
  }

  #rest(transfer: Transfer): void {
    transfer.end();
    this.#idle.push(transfer);
  }

  #giveUp(job: Job, error: unknown): void {
    this.#waiting.delete(job);
    if (job.transfer !== undefined && this.#active.get(job.transfer.easy) === job) {
      this.#rest(this.#detach(job));
    }
    job.reject(error);
    this.#startWaiting();
  }

  /** A callback that fails ends its own request, not the loop. */
  #tell(job: Job, bodyBytes: number): void {
    try {
      job.request.progress?.(bodyBytes);
    } catch (error) {
      this.#giveUp(job, error);
    }
  }

  /** Gives up what stands still. */
  #check(): void {
    const now = performance.now();
    const gap = now - this.#checkedAt;
    if (gap < this.#checkMs) return;
    this.#checkedAt = now;
    for (const job of this.#active.values()) {
      const transfer = job.transfer as Transfer;
      const moved = this.#watch.progressOf(transfer.number);
      const progress = transfer.progress + moved.sent + moved.received;
      if (transfer.isTooLong) {
        this.#giveUp(job, bodyTooLong(job.route.host, job.request.target?.length ?? 0));
      } else if (progress !== job.progress) {
        job.progress = progress;
        job.movedAt = now;
        this.#tell(job, transfer.bodyBytes(moved.sent - job.sentBefore));
      } else if (transfer.isUpgraded) {
        this.#giveUp(job, upgradeError(job.route.host));
      } else if (transfer.isAnsweredEarly) {
        this.#finish(job, CODE.OK);
        this.#startWaiting();
      } else if (gap > STANDSTILL_MS) {
        job.movedAt = Math.min(now, job.movedAt + gap);
      } else if (now - job.movedAt >= job.request.stallMs) {
        const { host, proxy } = job.route;
        const seconds = Math.round(job.request.stallMs / 100) / 10;
        this.#giveUp(job, stallError(host, proxy?.label, transfer.isConnected, seconds));
      }
    }
  }
}

/** `libcurl 7.88.1, OpenSSL/3.0.19`. */
export function describeCurl(version: string): string {
  return version.split(" ").slice(0, 2).join(", ").replace("libcurl/", "libcurl ");
}

function upgradeError(host: string): HttpError {
  const message = `the server ${host} changed to another protocol, which was not asked for`;
  return new HttpError({ kind: "protocol", message, host });
}
