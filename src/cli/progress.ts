/**
 * A progress bar on standard error, where that is a terminal; elsewhere nothing at all, so that
 * scripts and logs stay clean. cli-progress is loaded only when a bar is shown.
 */
import { createRequire } from "node:module";
import { formatSize } from "../common/sizes.js";
import type { CommitProgress } from "../mount/control-protocol.js";

export interface Progress {
  /**
   * @param done, total in the bar's unit. @param moved bytes that went over the network so far,
   * shown with their rate where the unit is bytes.
   */
  update(done: number, total: number, moved?: number): void;
  /** Takes the bar away; call it before anything else is said, and at the end. */
  stop(): void;
}

const SILENT: Progress = { update: () => {}, stop: () => {} };

export function startProgress(title: string, unit: "bytes" | "blocks"): Progress {
  if (!process.stderr.isTTY) return SILENT;
  const { SingleBar } = createRequire(import.meta.url)(
    "cli-progress",
  ) as typeof import("cli-progress");
  const bar = new SingleBar({
    format: `${title} {bar} {percentage}% {text}`,
    barsize: 30,
    hideCursor: true,
    clearOnComplete: true,
    // Signals are ours to answer: cli-progress would end the process at once.
    gracefulExit: false,
    stream: process.stderr,
  });
  const began = performance.now();
  bar.start(1, 0, { text: "" });
  return {
    update: (done, total, moved = 0) => {
      const seconds = Math.max((performance.now() - began) / 1000, 0.001);
      const text =
        unit === "blocks"
          ? `${done} of ${total} blocks`
          : `of ${formatSize(total)}, ${formatSize(moved)} moved, ${formatSize(Math.round(moved / seconds))}/s`;
      // An empty whole is done: the bar knows no share of nothing.
      bar.setTotal(Math.max(total, 1));
      bar.update(total === 0 ? 1 : Math.min(done, total), { text });
    },
    stop: () => bar.stop(),
  };
}

/** The bar of a commit: there is none until it is known how much there is to do. */
export class CommitBar {
  #bar: Progress | undefined;

  readonly update = ({ blocksDone, blocksTotal }: CommitProgress): void => {
    this.#bar ??= startProgress("Committing", "blocks");
    this.#bar.update(blocksDone, blocksTotal);
  };

  stop(): void {
    this.#bar?.stop();
  }
}
