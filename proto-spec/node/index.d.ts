declare namespace Client {
  export interface Options {
    /** Who it is: 64 bits, as a BigInt, an integer or hexadecimal digits. Random if not given. */
    clientId?: bigint | number | string
    /** Messages that may wait; `send` rejects with `Full` beyond. 1,024 by default. */
    queuedMax?: number
    /** Is told of silence, of refusals that are waited for, and of names without addresses. */
    log?: (text: string) => void
    /** In place of the system's resolver. */
    lookup?: (host: string) => Promise<Array<{ address: string; family: number }>>
  }
  export interface SendOptions {
    /** The application's routing number, 0 to 65,535. */
    channel?: number
    /** The payload is a batch (PROTOCOL.md#batch). */
    batch?: boolean
  }
  export interface Receipt {
    epoch: number
    seq: bigint
  }
  /** The server will never take the message. Others are not concerned. */
  export class Refused extends Error {
    readonly code: number
  }
  /** The message fits in no datagram, or is longer than this system's UDP carries. */
  export class TooLarge extends Error {}
  /** Too many messages wait already. */
  export class Full extends Error {}
  /** The client was closed before the ack came. */
  export class Closed extends Error {}
  export const PAYLOAD_MAX: number
  export { Client }
}

declare class Client {
  /** @param server `host:port` or `[IPv6]:port` */
  constructor(server: string, options?: Client.Options)
  readonly clientId: bigint
  /** The session's epoch; 0 before the server has given one. */
  readonly epoch: number
  /** How many messages wait or are in flight. */
  readonly queued: number
  readonly closed: boolean
  /** Resolves when the message is on the server's disk. */
  send(payload: string | ArrayBufferView | ArrayBufferLike, options?: Client.SendOptions): Promise<Client.Receipt>
  /** Ends the client at once. */
  close(): void
}

export = Client
