/** The endpoint at one end of a slow line (scripts/slow-line), the command line at the other. Needs root. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { CLI, must, type Ran, type RunOptions, run, type Scratch, until } from "./scratch.js";

const SERVER = "10.77.0.1";
const SLOW_LINE = new URL("../../scripts/slow-line", import.meta.url).pathname;

export class SlowLine {
  readonly url: string;
  readonly #client: string;
  readonly #env: Record<string, string>;

  private constructor(url: string, client: string, env: Record<string, string>) {
    this.url = url;
    this.#client = client;
    this.#env = env;
  }

  /** @param serve further arguments of `ebsmount serve`. Taken away with `scratch`. */
  static async make(scratch: Scratch, mbit: number, ...serve: string[]): Promise<SlowLine> {
    const name = `ebs${process.pid}-${mbit}`;
    const [server, client] = [`${name}-server`, `${name}-client`];
    scratch.undo(() => run(SLOW_LINE, ["down", name]));
    await must(SLOW_LINE, ["up", name, String(mbit)]);
    const store = scratch.file("slow-store");
    const args = ["serve", "--store", store, "--host", SERVER, ...serve];
    const child = spawn("nsenter", [`--net=/run/netns/${server}`, process.execPath, CLI, ...args], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const ended = once(child, "exit");
    scratch.undo(async () => {
      child.kill("SIGTERM");
      await ended;
    });
    let said = "";
    child.stdout.on("data", (chunk) => {
      said += chunk;
    });
    const url = await until("the endpoint listens", () => /http:\/\/[0-9.:]+/.exec(said)?.[0]);
    return new SlowLine(url, client, {
      EBSMOUNT_ENDPOINT_URL: url,
      EBSMOUNT_REGION: "us-east-1",
      EBSMOUNT_STATE_DIR: scratch.file("state"),
      AWS_ACCESS_KEY_ID: "test",
      AWS_SECRET_ACCESS_KEY: "test",
      AWS_EC2_METADATA_DISABLED: "true",
    });
  }

  /** Runs a command on the client's side; mounts are seen everywhere. */
  run(command: readonly string[], options: RunOptions = {}): Promise<Ran> {
    const env = { ...this.#env, ...options.env };
    return run("nsenter", [`--net=/run/netns/${this.#client}`, ...command], { ...options, env });
  }

  ebsmount(args: readonly string[], options: RunOptions = {}): Promise<Ran> {
    return this.run([process.execPath, CLI, ...args], options);
  }
}
