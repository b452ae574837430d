/**
 * A slow line on this machine: two network namespaces of the test's own, joined by a pair of virtual Ethernet
 * devices whose rate tbf limits in both directions. The endpoint runs in one, the command line in the other;
 * so what crosses is real TCP with its queues. Needs root and Debian's iproute2.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { CLI, must, type Ran, type RunOptions, run, type Scratch, until } from "./scratch.js";

const SERVER = "10.77.0.1";
const CLIENT = "10.77.0.2";

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
    const tag = `${process.pid}${Math.floor(Math.random() * 1e6)}`.slice(-8);
    const [server, client] = [`ebs-s${tag}`, `ebs-c${tag}`];
    for (const name of [server, client]) {
      await must("ip", ["netns", "add", name]);
      scratch.undo(() => run("ip", ["netns", "delete", name]));
    }
    const inside = (name: string, ...args: string[]) => must("ip", ["-n", name, ...args]);
    await inside(server, ..."link add eth0 type veth peer name eth1".split(" "));
    await inside(server, "link", "set", "eth1", "netns", client);
    for (const [name, device, address] of [
      [server, "eth0", SERVER],
      [client, "eth1", CLIENT],
    ] as const) {
      await inside(name, "addr", "add", `${address}/24`, "dev", device);
      await inside(name, "link", "set", device, "up");
      await inside(name, "link", "set", "lo", "up");
      const shape = `qdisc add dev ${device} root tbf rate ${mbit}mbit burst 16kb latency 300ms`;
      await must("tc", ["-n", name, ...shape.split(" ")]);
      // Else the kernel hands over pieces of 64 KiB, larger than the bucket.
      await run("nsenter", [
        `--net=/run/netns/${name}`,
        "ethtool",
        "-K",
        device,
        "tso",
        "off",
        "gso",
        "off",
      ]);
    }
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
