/**
 * The C library, called through koffi, for the few system calls that Node lacks. koffi brings prebuilt
 * binaries for x64 and arm64 Linux and is loaded on first use only, so that commands that need none of
 * this start faster.
 */
import { createRequire } from "node:module";
import { Failure } from "./failure.js";

type Koffi = typeof import("koffi");

let koffi: Koffi | undefined;

/** @throws Failure ENOSYS where it is not installed or does not load. */
export function loadKoffi(): Koffi {
  try {
    koffi ??= createRequire(import.meta.url)("koffi") as Koffi;
    return koffi;
  } catch (cause) {
    throw new Failure(
      "ENOSYS",
      `koffi cannot be loaded here (${(cause as Error).message}); reinstall ebsmount with its dependencies, on x64 or arm64 Linux.`,
      { cause },
    );
  }
}

/** @throws Failure ENOSYS */
export function loadLibc(): ReturnType<Koffi["load"]> {
  return loadKoffi().load("libc.so.6");
}

/** Where memory lies, in this process: of an ArrayBuffer's memory it never changes. @throws Failure ENOSYS */
export function addressOf(memory: Uint8Array): number {
  return Number(loadKoffi().address(memory));
}
