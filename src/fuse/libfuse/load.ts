/**
 * Finds fuse-native, and libfuse 2 for it. The add-on is linked to libfuse.so.2, which a machine with
 * fuse3 alone does not have; fuse-native's dependency fuse-shared-library brings one. That one is
 * loaded first where the system has none: the dynamic linker then takes it for the add-on's, because
 * it goes by the library's own name (ld.so(8), DT_SONAME).
 */
import { createRequire } from "node:module";
import type FuseNative from "fuse-native";
import { Failure } from "../../common/failure.js";
import { loadKoffi } from "../../common/libc.js";

/** @throws Failure ENOSYS with the reason where it is not installed or does not load. */
export function loadFuseNative(): typeof FuseNative {
  const require = createRequire(import.meta.url);
  try {
    try {
      return require("fuse-native") as typeof FuseNative;
    } catch (error) {
      if (!/libfuse\.so\.2/.test((error as Error).message)) throw error;
      loadSharedLibrary(require);
      return require("fuse-native") as typeof FuseNative;
    }
  } catch (cause) {
    const why =
      (cause as NodeJS.ErrnoException).code === "MODULE_NOT_FOUND"
        ? "the optional package fuse-native is not installed"
        : `fuse-native does not load here (${(cause as Error).message.split("\n")[0]})`;
    throw new Failure(
      "ENOSYS",
      `The libfuse driver cannot be used: ${why}; use --fuse-driver kernel, which needs neither, or install fuse-native (x64 Linux, or a C compiler) and libfuse 2.`,
      { cause },
    );
  }
}

/** It stays loaded: koffi closes nothing that is not closed. */
function loadSharedLibrary(require: NodeJS.Require): void {
  const ofFuseNative = createRequire(require.resolve("fuse-native"));
  const { lib } = ofFuseNative("fuse-shared-library") as { lib: string };
  loadKoffi().load(lib);
}
