/**
 * Where a worker thread's code is. A worker is loaded by Node itself, which knows only the built
 * JavaScript; under vitest the code around it runs from src/, so a worker's URL is moved to dist/.
 */

/** @param parent import.meta.url of the caller. @param file the worker beside it, e.g. './worker.js'. */
export function workerUrl(parent: string, file: string): URL {
  const url = new URL(file, parent);
  if (parent.endsWith(".ts")) url.pathname = url.pathname.replace("/src/", "/dist/");
  return url;
}
