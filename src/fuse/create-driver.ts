/** Chooses a driver by name, loading only that one: each brings what the other does not need. */
import type { FuseDriver } from "./driver.js";

export async function createFuseDriver(name: "kernel" | "libfuse"): Promise<FuseDriver> {
  if (name === "kernel") return (await import("./kernel/driver.js")).kernelDriver;
  return (await import("./libfuse/driver.js")).libfuseDriver;
}
