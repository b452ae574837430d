/**
 * Makes the SDK's client: region, credentials and endpoint from its own chain, with what the user
 * gave on top. Two conveniences for endpoints that are not AWS: a region is not asked for where an
 * endpoint URL is given, and an endpoint on loopback gets placeholder credentials where there are
 * none, so that a first try needs no account.
 */
import "./quiet-sdk.js";
import { EBSClient, type EBSClientConfig } from "@aws-sdk/client-ebs";
import { loadConfig } from "@smithy/core/config";
import { createTransport, transportSettings } from "../http/create.js";
import type { HttpTransport, TransportSettings } from "../http/transport.js";
import { RequestHandler } from "./request-handler.js";

export interface ClientOptions {
  readonly region?: string;
  readonly profile?: string;
  readonly endpointUrl?: string;
}

/** The SDK's client and the transport that it sends through, which whoever made the client closes. */
export interface Client {
  readonly sdk: EBSClient;
  readonly transport: HttpTransport;
}

/** How requests go out: proxies and certificates from the environment and the profile. @throws Failure EINVAL */
export async function transportSettingsOf(
  { profile }: ClientOptions,
  maxConnections: number,
): Promise<TransportSettings> {
  const caBundle = await loadConfig<string | undefined>(
    {
      environmentVariableSelector: () => undefined,
      configFileSelector: (section) => section.ca_bundle,
      default: undefined,
    },
    profile === undefined ? {} : { profile },
  )();
  return transportSettings(process.env, {
    maxConnections,
    ...(caBundle !== undefined && { caBundle }),
  });
}

/** For a few requests. */
export async function makeClient(options: ClientOptions): Promise<Client> {
  const transport = createTransport(await transportSettingsOf(options, 4));
  return { transport, sdk: makeSdk(options, transport) };
}

/**
 * @param renew credentials are taken from their source again, past what the SDK remembers of files.
 */
export function makeSdk(
  options: ClientOptions,
  transport: HttpTransport,
  renew = false,
): EBSClient {
  const endpoint = options.endpointUrl ?? environmentEndpoint();
  const given: EBSClientConfig = {
    maxAttempts: 1,
    logger: SILENT,
    requestHandler: new RequestHandler(transport) as never,
    ...(options.profile !== undefined && { profile: options.profile }),
    ...(options.endpointUrl !== undefined && { endpoint: options.endpointUrl }),
    ...(options.region !== undefined && { region: options.region }),
  };
  // The SDK's defaults are to be had from a client only, so one is made to ask for them.
  const { config } = new EBSClient(given);
  const chain = config.credentialDefaultProvider({
    ...config,
    parentClientConfig: config,
    ...(renew && { ignoreCache: true }),
  } as Parameters<typeof config.credentialDefaultProvider>[0]);
  const region = async (): Promise<string> => {
    try {
      return await config.region();
    } catch (error) {
      if (endpoint !== undefined) return "us-east-1";
      throw error;
    }
  };
  const credentials: EBSClientConfig["credentials"] = async (identity) => {
    try {
      return await chain(identity);
    } catch (error) {
      const isLocal = endpoint !== undefined && isLoopback(endpoint);
      // If the user named a profile, report its error instead of using placeholder credentials.
      if (isLocal && options.profile === undefined) return PLACEHOLDER;
      throw error;
    }
  };
  return new EBSClient({ ...given, region, credentials });
}

/** Silences the SDK's own log messages (that a profile wins over keys, …). */
const SILENT = { trace() {}, debug() {}, info() {}, warn() {}, error() {} };

/**
 * Where requests go with these options now, as options that say it in full: what is found in the
 * environment and the profile today may be another tomorrow. No secrets.
 */
export async function settledOptions(options: ClientOptions): Promise<Record<string, string>> {
  const profile = options.profile ?? (process.env.AWS_PROFILE || undefined);
  const endpointUrl = options.endpointUrl ?? environmentEndpoint();
  const { sdk, transport } = await makeClient(options);
  try {
    const region = await sdk.config.region();
    return {
      region,
      ...(profile !== undefined && { profile }),
      ...(endpointUrl !== undefined && { endpointUrl }),
    };
  } finally {
    sdk.destroy();
    await transport.close();
  }
}

/** Accepted by a local endpoint that does not check signatures; worthless anywhere else. */
const PLACEHOLDER = { accessKeyId: "local", secretAccessKey: "local" };

/** Where requests go, for sentences; undefined for AWS itself. */
export function environmentEndpoint(): string | undefined {
  return process.env.AWS_ENDPOINT_URL_EBS || process.env.AWS_ENDPOINT_URL || undefined;
}

function isLoopback(url: string): boolean {
  try {
    const { hostname } = new URL(url);
    return hostname === "localhost" || hostname === "[::1]" || hostname.startsWith("127.");
  } catch {
    return false;
  }
}
