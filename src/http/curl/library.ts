/**
 * libcurl, the machine's own, loaded through koffi. Functions take handles as the numbers that koffi gives,
 * memory as typed arrays or addresses; each call costs about 0.1 µs.
 *
 * It is loaded with RTLD_DEEPBIND: Node exports the names of the OpenSSL that it carries, and without that
 * flag libcurl binds to those instead of its own (Debian 11's then crashes over TLS). musl has no such flag.
 * `curl_global_init` is called once, when the first thread loads this, before any other thread can (it is
 * thread-safe only from 7.84).
 */
import { isMainThread } from "node:worker_threads";
import { loadKoffi, loadLibc } from "../../common/libc.js";

/** A pointer that libcurl or the C library gave. */
export type Pointer = bigint;
/** Memory that C reads or writes: a view, or where it lies. */
export type Memory = Uint8Array | Pointer | null;

/** A finished transfer: its easy handle, and its CURLcode. */
export interface FinishedTransfer {
  readonly easy: Pointer;
  readonly code: number;
}

export interface CurlLibrary {
  /** As `curl_version` says it: `libcurl/7.88.1 OpenSSL/3.0.19 …`. */
  readonly version: string;
  /** 0xXXYYZZ. Source: curl/curlver.h, LIBCURL_VERSION_NUM. */
  readonly versionNumber: number;
  easyInit(): Pointer;
  easyCleanup(easy: Pointer): void;
  setLong(easy: Pointer, option: number, value: number): number;
  setPointer(easy: Pointer, option: number, value: Memory): number;
  setText(easy: Pointer, option: number, value: string | null): number;
  /** @param value takes one 64-bit number, low half first. */
  getNumber(easy: Pointer, info: number, value: Uint32Array): number;
  appendText(list: Pointer | null, text: string): Pointer | null;
  /** @param bytes end with NUL. */
  appendBytes(list: Pointer | null, bytes: Uint8Array): Pointer | null;
  freeTexts(list: Pointer): void;
  explain(code: number): string;
  multiInit(): Pointer;
  multiCleanup(multi: Pointer): void;
  setMultiLong(multi: Pointer, option: number, value: number): number;
  addHandle(multi: Pointer, easy: Pointer): number;
  removeHandle(multi: Pointer, easy: Pointer): number;
  perform(multi: Pointer, running: Int32Array): number;
  /** Waits for at most `ms`. @param ready takes how many descriptors are ready. */
  poll(multi: Pointer, ms: number, ready: Int32Array): number;
  nextFinished(multi: Pointer): FinishedTransfer | undefined;
  /**
   * A callback for CURLOPT_SOCKOPTFUNCTION; called once a connection, inside `perform`, with the number that
   * the handle was given as CURLOPT_SOCKOPTDATA.
   */
  onSocket(prepare: (descriptor: number, handle: number) => void): Pointer;
  /** A callback for CURLOPT_CLOSESOCKETFUNCTION, which must close the descriptor. */
  onClose(close: (descriptor: number) => void): Pointer;
  releaseCallback(callback: Pointer): void;
}

/** 7.68 has curl_multi_wakeup; Debian 11, Ubuntu 20.04, RHEL 9 and Amazon Linux 2023 have it or a later one. */
const MIN_VERSION = 0x074400;
/** Before 7.87 each connection reads the whole CA bundle again. */
export const CA_CACHE_VERSION = 0x075700;
/** Source: curl/curl.h. */
const CURL_VERSION_SSL = 4;
const CURL_GLOBAL_ALL = 3;
const CURLMSG_DONE = 1;
const CURLVERSION_FIRST = 0;

let loaded: CurlLibrary | string | undefined;

/** @returns the library, or the reason, for a sentence, why it cannot be used here. */
export function loadCurl(): CurlLibrary | string {
  loaded ??= tryToLoad();
  return loaded;
}

function tryToLoad(): CurlLibrary | string {
  if (process.arch !== "x64" && process.arch !== "arm64")
    return `it is not used on ${process.arch}`;
  try {
    if (!isGlibc()) return "it is used with glibc only, which has RTLD_DEEPBIND";
    return bind();
  } catch (error) {
    return `libcurl.so.4 does not load (${(error as Error).message.split("\n")[0]})`;
  }
}

function isGlibc(): boolean {
  try {
    loadLibc().func("const char *gnu_get_libc_version()");
    return true;
  } catch {
    return false;
  }
}

function bind(): CurlLibrary | string {
  const koffi = loadKoffi();
  const curl = koffi.load("libcurl.so.4", { deep: true });
  const info = koffi.decode(
    curl.func("void *curl_version_info(int age)")(CURLVERSION_FIRST),
    koffi.struct({
      age: "int",
      version: "const char *",
      versionNumber: "uint",
      host: "const char *",
      features: "int",
    }),
  ) as { version: string; versionNumber: number; features: number };
  if (info.versionNumber < MIN_VERSION) return `libcurl ${info.version} is older than 7.68`;
  if ((info.features & CURL_VERSION_SSL) === 0) return `libcurl ${info.version} has no TLS`;
  if (isMainThread && curl.func("int curl_global_init(long flags)")(CURL_GLOBAL_ALL) !== 0) {
    return `libcurl ${info.version} does not start`;
  }
  const poll = curl.func("int curl_multi_poll(void *, void *, uint, int, void *)");
  const infoRead = curl.func("void *curl_multi_info_read(void *multi, void *left)");
  const message = koffi.struct({ kind: "int", easy: "void *", code: "int" });
  const left = new Int32Array(1);
  const closeCallback = koffi.pointer(koffi.proto("int (void *client, int fd)"));
  const socketCallback = koffi.pointer(koffi.proto("int (void *client, int fd, int purpose)"));
  return {
    version: curl.func("const char *curl_version()")() as string,
    versionNumber: info.versionNumber,
    easyInit: curl.func("void *curl_easy_init()"),
    easyCleanup: curl.func("void curl_easy_cleanup(void *easy)"),
    // One variadic C function, called by the types that its callers use. On x64 and arm64 Linux such
    // arguments go where fixed ones go.
    setLong: curl.func("int curl_easy_setopt(void *easy, int option, long value)"),
    setPointer: curl.func("int curl_easy_setopt(void *easy, int option, void *value)"),
    setText: curl.func("int curl_easy_setopt(void *easy, int option, const char *value)"),
    getNumber: curl.func("int curl_easy_getinfo(void *easy, int info, void *value)"),
    appendText: curl.func("void *curl_slist_append(void *list, const char *text)"),
    appendBytes: curl.func("void *curl_slist_append(void *list, void *text)"),
    freeTexts: curl.func("void curl_slist_free_all(void *list)"),
    explain: curl.func("const char *curl_easy_strerror(int code)"),
    multiInit: curl.func("void *curl_multi_init()"),
    multiCleanup: curl.func("int curl_multi_cleanup(void *multi)"),
    setMultiLong: curl.func("int curl_multi_setopt(void *multi, int option, long value)"),
    addHandle: curl.func("int curl_multi_add_handle(void *multi, void *easy)"),
    removeHandle: curl.func("int curl_multi_remove_handle(void *multi, void *easy)"),
    perform: curl.func("int curl_multi_perform(void *multi, void *running)"),
    poll: (multi, ms, ready) => poll(multi, null, 0, ms, ready) as number,
    nextFinished(multi) {
      for (;;) {
        const pointer = infoRead(multi, left) as Pointer | null;
        if (pointer === null) return undefined;
        const { kind, easy, code } = koffi.decode(pointer, message) as {
          kind: number;
          easy: Pointer;
          code: number;
        };
        if (kind === CURLMSG_DONE) return { easy, code };
      }
    },
    onSocket(prepare) {
      const call = (client: Pointer | null, descriptor: number): number => {
        prepare(descriptor, Number(client ?? 0));
        return 0;
      };
      return koffi.register(call, socketCallback) as unknown as Pointer;
    },
    onClose(close) {
      const call = (_client: unknown, descriptor: number): number => {
        close(descriptor);
        return 0;
      };
      return koffi.register(call, closeCallback) as unknown as Pointer;
    },
    releaseCallback: (callback) => koffi.unregister(callback as never),
  };
}

/** What this folder needs of the C library: streams over memory, anonymous memory, sockets. */
export interface CLibrary {
  /** A stream over memory, which never writes past its end; 0n on failure. */
  openMemory(memory: Memory, size: number): Pointer | null;
  position(stream: Pointer): number;
  closeStream(stream: Pointer): void;
  copy(target: Uint8Array, source: Pointer, length: number): void;
  map(length: number): Pointer | null;
  unmap(address: Pointer, length: number): void;
  closeOnExec(descriptor: number): void;
  memoryFile(name: string): number;
  /** A socket has something to read, or is at its end. Waits for nothing. */
  isReadable(descriptor: number): boolean;
  /** Reads what a socket holds to nowhere, and ends it in both directions. */
  shutDown(descriptor: number): void;
  close(descriptor: number): void;
}

const UNBUFFERED = 2;
const PROT_READ_WRITE = 3;
const MAP_PRIVATE_ANONYMOUS_NORESERVE = 0x4022;
const MAP_FAILED = 0xffffffffffffffffn;
const F_SETFD = 2;
const FD_CLOEXEC = 1;
const MFD_CLOEXEC = 1;
const POLLIN = 1;
const MSG_DONTWAIT = 0x40;
const SHUT_RDWR = 2;

let cLibrary: CLibrary | undefined;

/** @throws Failure ENOSYS */
export function loadCLibrary(): CLibrary {
  cLibrary ??= bindCLibrary();
  return cLibrary;
}

function bindCLibrary(): CLibrary {
  const libc = loadLibc();
  const fmemopen = libc.func("void *fmemopen(void *memory, size_t size, const char *mode)");
  const setvbuf = libc.func("int setvbuf(void *file, void *buffer, int mode, size_t size)");
  const mmap = libc.func("void *mmap(void *, size_t, int, int, int, long)");
  const fcntl = libc.func("int fcntl(int fd, int command, int argument)");
  const memfd = libc.func("int memfd_create(const char *name, uint flags)");
  const poll = libc.func("int poll(void *descriptors, ulong count, int ms)");
  const recv = libc.func("long recv(int fd, void *buffer, size_t size, int flags)");
  const shutdown = libc.func("int shutdown(int fd, int how)");
  /** struct pollfd: the descriptor; what is asked for and what there is, 16 bits each. */
  const pollEntry = new Int32Array(2);
  const nowhere = new Uint8Array(64 * 1024);
  return {
    openMemory(memory, size) {
      // Opened with "w", glibc ends a full buffer with NUL instead of its last byte.
      const stream = fmemopen(memory, size, "r+") as Pointer | null;
      if (stream !== null) setvbuf(stream, null, UNBUFFERED, 0);
      return stream;
    },
    position: libc.func("long ftell(void *file)"),
    closeStream: libc.func("int fclose(void *file)"),
    copy: libc.func("void *memcpy(void *target, void *source, size_t length)"),
    map(length) {
      const flags = MAP_PRIVATE_ANONYMOUS_NORESERVE;
      const address = mmap(null, length, PROT_READ_WRITE, flags, -1, 0) as Pointer | null;
      return address === MAP_FAILED ? null : address;
    },
    unmap: libc.func("int munmap(void *, size_t)"),
    closeOnExec: (descriptor) => void fcntl(descriptor, F_SETFD, FD_CLOEXEC),
    memoryFile: (name) => memfd(name, MFD_CLOEXEC) as number,
    isReadable(descriptor) {
      pollEntry[0] = descriptor;
      pollEntry[1] = POLLIN;
      return poll(pollEntry, 1, 0) > 0;
    },
    shutDown(descriptor) {
      shutdown(descriptor, SHUT_RDWR);
      // What came before stays readable: it ends with what the socket's buffer holds.
      while (recv(descriptor, nowhere, nowhere.length, MSG_DONTWAIT) > 0);
    },
    close: libc.func("int close(int fd)"),
  };
}
