/**
 * The transport over libcurl: one multi handle, whose connections are kept, and as many easy handles as
 * requests are under way. A request beyond the limit of connections waits in line here.
 *
 * A transfer is taken out of the multi handle before its request settles; after that libcurl neither writes
 * into its target nor reads its body. Host names are looked up by Node (resolver.ts) and handed over, because
 * libcurl waits for its own look-up threads when a transfer is taken out.
 */
import { isIP } from "node:net";
import { checkRequest, type Target } from "../check-request.js";
import { abortError, HttpError } from "../http-error.js";
import { type ProxyRoute, proxyFor } from "../proxies.js";
import { resolveHost } from "../resolver.js";
import type { HttpRequest, HttpResponse, HttpTransport, TransportSettings } from "../transport.js";
import {
  AUTH_BASIC,
  HTTP_1_1,
  MULTI_OPTION,
  OPTION,
  PROTOCOL_HTTP_AND_HTTPS,
  TLS_1_2,
} from "./constants.js";
import {
  CA_CACHE_VERSION,
  type CLibrary,
  type CurlLibrary,
  loadCLibrary,
  type Pointer,
} from "./library.js";
import { type Loop, MultiLoop } from "./multi-loop.js";
import { Transfer } from "./transfer.js";
import { trustFile } from "./trust-file.js";
import { makeWakeHandle, type WakeHandle } from "./wake.js";

/** libcurl's buffers, bytes: 64 KiB is as good as 512. */
const BUFFER_BYTES = 64 * 1024;
/**
 * Bytes that the kernel takes of a body before it has sent them. Small, so that what libcurl counts as sent
 * is sent: a peer that does not read is seen.
 */
const MAX_UNSENT_BYTES = 128 * 1024;
/** Source: tcp(7), netinet/tcp.h. */
const IPPROTO_TCP = 6;
const TCP_NOTSENT_LOWAT = 25;
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
  readonly target: Target;
  readonly route: Route;
  resolve(response: HttpResponse): void;
  reject(error: unknown): void;
  /** Where it is under way. */
  transfer: Transfer | undefined;
  progress: number;
  movedAt: number;
}

/** How its connection is made. */
interface Route {
  readonly proxy: ProxyRoute | undefined;
  /** `host:port:address,address` for libcurl's cache of names; undefined for an address. */
  readonly addresses: string | undefined;
  readonly key: string;
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
  readonly #onSocket: Pointer;
  readonly #caFile: string | undefined;
  readonly #idle: Transfer[] = [];
  /** By the easy handle's address. */
  readonly #active = new Map<Pointer, Job>();
  readonly #waiting = new Set<Job>();
  /** The route that a handle is set to, and the list that it holds. */
  readonly #routes = new Map<Transfer, { key: string; list: Pointer | null }>();
  #lookUps = 0;
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
    this.#caFile = trustFile(settings.trust, this.#c);
    this.description = describeCurl(curl.version);
    const first =
      curl.versionNumber < CA_CACHE_VERSION ? FIRST_REQUESTS_WITHOUT_CA_CACHE : FIRST_REQUESTS;
    this.#allowed = Math.min(first, settings.maxConnections);
    this.#onSocket = curl.onSocket((descriptor) => {
      this.#c.setSocketNumber(descriptor, IPPROTO_TCP, TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES);
      this.#c.closeOnExec(descriptor);
    });
    this.#multi = curl.multiInit();
    curl.setMultiLong(this.#multi, MULTI_OPTION.PIPELINING, 0);
    curl.setMultiLong(this.#multi, MULTI_OPTION.MAXCONNECTS, settings.maxConnections);
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
    const route = await untilAborted(this.#routeTo(target, proxy), signal, target.label);
    if (this.#isClosed) throw abortError("closed", target.label);
    return await new Promise((resolve, reject) => {
      const job: Job = {
        request,
        target,
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
    for (const job of [...this.#waiting, ...this.#active.values()]) {
      this.#giveUp(job, abortError("closed", job.target.label));
    }
    for (const transfer of this.#idle.splice(0)) {
      transfer.close();
      const list = this.#routes.get(transfer)?.list ?? null;
      if (list !== null) this.#curl.freeTexts(list);
    }
    this.#curl.multiCleanup(this.#multi);
    this.#curl.releaseCallback(this.#onSocket);
  }

  async #routeTo(target: Target, proxy: ProxyRoute | undefined): Promise<Route> {
    const { hostname, port } =
      proxy === undefined ? target : { hostname: proxy.host, port: proxy.port };
    if (isIP(hostname) !== 0) return { proxy, addresses: undefined, key: proxy?.label ?? "" };
    this.#lookUps += 1;
    try {
      const found = await resolveHost(hostname);
      const list = found.map((address) => (isIP(address) === 6 ? `[${address}]` : address)).join();
      const addresses = `${hostname}:${port}:${list}`;
      return { proxy, addresses, key: `${proxy?.label ?? ""} ${addresses}` };
    } finally {
      this.#lookUps -= 1;
    }
  }

  #startWaiting(): void {
    for (const job of this.#waiting) {
      if (this.#active.size >= this.#allowed) return;
      this.#waiting.delete(job);
      this.#start(job);
    }
  }

  #start(job: Job): void {
    const transfer = this.#idle.pop() ?? this.#makeTransfer();
    try {
      transfer.begin(job.request);
      this.#setRoute(transfer, job.route);
    } catch (error) {
      this.#rest(transfer);
      job.reject(error);
      return;
    }
    job.transfer = transfer;
    job.movedAt = performance.now();
    this.#checkMs = Math.min(this.#checkMs, job.request.stallMs / 4);
    if (this.#active.size === 0) this.#checkedAt = job.movedAt;
    this.#active.set(transfer.easy, job);
    this.#curl.addHandle(this.#multi, transfer.easy);
    this.#loop.run();
  }

  #makeTransfer(): Transfer {
    const curl = this.#curl;
    const transfer = new Transfer(curl, this.#c);
    const { easy } = transfer;
    curl.setLong(easy, OPTION.NOSIGNAL, 1);
    curl.setLong(easy, OPTION.HTTP_VERSION, HTTP_1_1);
    curl.setLong(easy, OPTION.HTTP09_ALLOWED, 0);
    curl.setLong(easy, OPTION.PROTOCOLS, PROTOCOL_HTTP_AND_HTTPS);
    curl.setLong(easy, OPTION.SSLVERSION, TLS_1_2);
    curl.setLong(easy, OPTION.PROXY_SSLVERSION, TLS_1_2);
    curl.setLong(easy, OPTION.BUFFERSIZE, BUFFER_BYTES);
    curl.setLong(easy, OPTION.UPLOAD_BUFFERSIZE, BUFFER_BYTES);
    curl.setLong(easy, OPTION.TCP_KEEPALIVE, 1);
    curl.setLong(easy, OPTION.PATH_AS_IS, 1);
    curl.setLong(easy, OPTION.SUPPRESS_CONNECT_HEADERS, 1);
    curl.setLong(easy, OPTION.PROXYAUTH, AUTH_BASIC);
    curl.setPointer(easy, OPTION.SOCKOPTFUNCTION, this.#onSocket);
    // An empty proxy keeps libcurl from reading the environment.
    curl.setText(easy, OPTION.PROXY, "");
    curl.setText(easy, OPTION.NOPROXY, "");
    if (this.#caFile !== undefined) {
      curl.setText(easy, OPTION.CAINFO, this.#caFile);
      curl.setText(easy, OPTION.PROXY_CAINFO, this.#caFile);
      // With a folder beside the file, libcurl reads the whole bundle again for each connection.
      curl.setText(easy, OPTION.CAPATH, null);
      curl.setText(easy, OPTION.PROXY_CAPATH, null);
    }
    return transfer;
  }

  #setRoute(transfer: Transfer, { proxy, addresses, key }: Route): void {
    const set = this.#routes.get(transfer);
    if (set?.key === key) return;
    const curl = this.#curl;
    const { easy } = transfer;
    curl.setText(easy, OPTION.PROXY, proxy === undefined ? "" : urlOf(proxy));
    curl.setText(easy, OPTION.PROXYUSERNAME, proxy?.user ?? null);
    curl.setText(easy, OPTION.PROXYPASSWORD, proxy?.password ?? null);
    const list = addresses === undefined ? null : curl.appendText(null, addresses);
    curl.setPointer(easy, OPTION.RESOLVE, list);
    if (set !== undefined && set.list !== null) curl.freeTexts(set.list);
    this.#routes.set(transfer, { key, list });
  }

  #harvest(): number {
    let count = 0;
    for (;;) {
      const finished = this.#curl.nextFinished(this.#multi);
      if (finished === undefined) break;
      const job = this.#active.get(finished.easy);
      if (job === undefined) continue;
      count += 1;
      const transfer = this.#detach(job);
      try {
        const response = transfer.result(finished.code, {
          host: job.target.label,
          proxy: job.route.proxy?.label,
        });
        if (this.#allowed < this.#settings.maxConnections) this.#allowed += 1;
        job.resolve(response);
      } catch (error) {
        job.reject(error);
      }
      this.#rest(transfer);
    }
    if (count > 0) this.#startWaiting();
    return count;
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

  #giveUp(job: Job, error: HttpError): void {
    this.#waiting.delete(job);
    if (job.transfer !== undefined && this.#active.get(job.transfer.easy) === job) {
      this.#rest(this.#detach(job));
    }
    job.reject(error);
    this.#startWaiting();
  }

  /** Gives up what stands still. */
  #check(): void {
    const now = performance.now();
    const gap = now - this.#checkedAt;
    if (gap < this.#checkMs) return;
    this.#checkedAt = now;
    for (const job of this.#active.values()) {
      const transfer = job.transfer as Transfer;
      const { progress } = transfer;
      if (progress !== job.progress) {
        job.progress = progress;
        job.movedAt = now;
        job.request.progress?.(transfer.bodyBytes);
      } else if (gap > STANDSTILL_MS) {
        job.movedAt = Math.min(now, job.movedAt + gap);
      } else if (now - job.movedAt >= job.request.stallMs) {
        this.#giveUp(job, stalled(job, transfer.isConnected));
      }
    }
  }
}

/** `libcurl 7.88.1, OpenSSL/3.0.19`. */
export function describeCurl(version: string): string {
  return version.split(" ").slice(0, 2).join(", ").replace("libcurl/", "libcurl ");
}

/** Leaves a look-up, which takes no signal, when the request is aborted. */
async function untilAborted<T>(
  work: Promise<T>,
  signal: AbortSignal | undefined,
  host: string,
): Promise<T> {
  if (signal === undefined) return await work;
  let abort = () => {};
  const stopped = new Promise<never>((_resolve, reject) => {
    abort = () => reject(abortError("aborted", host));
    signal.addEventListener("abort", abort, { once: true });
  });
  try {
    return await Promise.race([work, stopped]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

function urlOf({ isSecure, host, port }: ProxyRoute): string {
  return `${isSecure ? "https" : "http"}://${isIP(host) === 6 ? `[${host}]` : host}:${port}`;
}

function stalled({ request, target, route }: Job, isConnected: boolean): HttpError {
  const seconds = Math.round(request.stallMs / 100) / 10;
  const host = target.label;
  const proxy = route.proxy?.label;
  const details = { host, ...(proxy !== undefined && { proxy }) };
  if (isConnected) {
    const message = `nothing moved on the connection to ${host} for ${seconds} s`;
    return new HttpError({ kind: "stalled", message, ...details });
  }
  const to = proxy === undefined ? host : `the proxy ${proxy}`;
  const message = `cannot connect to ${to}: no response within ${seconds} s`;
  return new HttpError({
    kind: proxy === undefined ? "unreachable" : "proxy",
    message,
    ...details,
  });
}
