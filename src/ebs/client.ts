/**
 * Makes the SDK's client, from what the user gave and what the AWS configuration says (src/aws): it is given
 * everything and looks for nothing by itself. Two conveniences for endpoints that are not AWS: a region is not
 * asked for where an endpoint URL is given, and an endpoint on loopback gets placeholder credentials where
 * there are none, so that a first try needs no account.
 */
import "./quiet-sdk.js";
import { EBSClient, type EBSClientConfig } from "@aws-sdk/client-ebs";
import type { Clock } from "../aws/clock.js";
import { CredentialSource } from "../aws/credential-source.js";
import { type AwsCredentials, NoCredentials } from "../aws/credentials.js";
import { type SdkChain, type SdkRequestHandler, SILENT } from "../aws/sdk-credentials.js";
import {
  type AwsSettings,
  isLoopback,
  type PlaceOptions,
  readSettings,
  usesEnvironmentKeys,
} from "../aws/settings.js";
import { createTransport, transportSettings } from "../http/create.js";
import type { HttpTransport, TransportSettings } from "../http/transport.js";
import { RequestHandler } from "./request-handler.js";

export type ClientOptions = PlaceOptions;

/** The way to one place, made once; all its clients share it. */
export interface OpenedPlace {
  readonly aws: AwsSettings;
  /** Where requests really go, AWS's own endpoint included. */
  readonly endpointUrl: string;
  readonly settings: TransportSettings;
  /** Closed by the caller that opened the place. */
  readonly transport: HttpTransport;
  readonly source: CredentialSource;
  /** This machine's clock against the service's. */
  readonly clock: Clock;
  readonly handler: RequestHandler;
}

/**
 * Makes no request, but where only the instance knows its region.
 * @param stallMs of requests for credentials, as in HttpRequest.
 * @throws Failure EINVAL where the configuration, certificates or proxies cannot be used
 */
export async function openPlace(
  options: ClientOptions,
  maxConnections: number,
  stallMs: number,
): Promise<OpenedPlace> {
  const aws = await readSettings(options);
  const settings = transportSettings(process.env, {
    maxConnections,
    ...(aws.caBundle !== undefined && { caBundle: aws.caBundle }),
  });
  const transport = createTransport(settings);
  const handler = new RequestHandler(transport, stallMs);
  const clock: Clock = { offsetMs: 0 };
  const source = new CredentialSource({
    settings: aws,
    transport,
    handler: handler as SdkRequestHandler,
    stallMs,
    clock,
    chain: sdkChain,
  });
  return { aws, endpointUrl: endpointOf(aws), settings, transport, source, clock, handler };
}

/** A client for what is asked of it before it is closed. */
export function makeSdk(place: OpenedPlace): EBSClient {
  const { source, clock, handler } = place;
  const sdk = new EBSClient({
    ...placeConfig(place.aws),
    maxAttempts: 1,
    logger: SILENT,
    requestHandler: handler as never,
    credentials: () => credentialsOf(place.aws, source),
  });
  // The SDK finds out from responses how wrong this machine's clock is; that outlives its clients.
  Object.defineProperty(sdk.config, "systemClockOffset", {
    get: () => clock.offsetMs,
    set: (offsetMs: number) => {
      clock.offsetMs = offsetMs;
    },
    enumerable: true,
  });
  return sdk;
}

/**
 * Where requests go with these options now, as options that say it in full: what is found in the
 * environment and the profile today may be another tomorrow. No secrets; makes no request.
 * @throws Failure EINVAL
 */
export async function settledOptions(options: ClientOptions): Promise<Record<string, string>> {
  const settings = await readSettings(options);
  const { region, profileName, profileFrom } = settings;
  return {
    region,
    // Where keys in the environment sign, the profile has no part in who asks.
    ...(profileFrom !== undefined && !usesEnvironmentKeys(settings) && { profile: profileName }),
    endpointUrl: endpointOf(settings),
  };
}

/** As the SDK finds it. */
function endpointOf(settings: AwsSettings): string {
  const { config } = new EBSClient(placeConfig(settings));
  const { url } = config.endpointProvider({
    Region: settings.region,
    UseFIPS: settings.useFipsEndpoint,
    UseDualStack: settings.useDualstackEndpoint,
    ...(settings.endpointUrl !== undefined && { Endpoint: settings.endpointUrl }),
  });
  return url.href.replace(/\/$/, "");
}

function placeConfig(settings: AwsSettings): EBSClientConfig {
  const { region, profileName, endpointUrl, useFipsEndpoint, useDualstackEndpoint } = settings;
  return {
    region,
    profile: profileName,
    ignoreConfiguredEndpointUrls: true,
    useFipsEndpoint,
    useDualstackEndpoint,
    ...(endpointUrl !== undefined && { endpoint: endpointUrl }),
  };
}

/** The SDK's own chain is to be had from a client only. */
const sdkChain: SdkChain = (init) => {
  const { config } = new EBSClient({ region: "us-east-1", logger: SILENT });
  return config.credentialDefaultProvider(init as never) as () => Promise<AwsCredentials>;
};

async function credentialsOf(
  { endpointUrl, profileFrom }: AwsSettings,
  source: CredentialSource,
): Promise<AwsCredentials> {
  try {
    return await source.get();
  } catch (error) {
    const isLocal = endpointUrl !== undefined && isLoopback(endpointUrl);
    // If the user named a profile, report that it has none instead of using placeholder credentials.
    if (error instanceof NoCredentials && isLocal && profileFrom !== "--profile")
      return PLACEHOLDER;
    throw error;
  }
}

/** Accepted by a local endpoint that does not check signatures; worthless anywhere else. */
const PLACEHOLDER: AwsCredentials = { accessKeyId: "local", secretAccessKey: "local" };
