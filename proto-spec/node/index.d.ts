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
    /** What earlier runs asked and has no answer, as `waiting` gave it: all of that, at most 64. */
    waiting?: Iterable<{ epoch: number; seq: bigint | number }>
  }
  export interface SendOptions {
    /** The application's routing number, 0 to 65,535. */
    channel?: number
    /** The payload is a batch (PROTOCOL.md#batch). */
    batch?: boolean
  }
  export interface AskOptions {
    /** The application's routing number, 0 to 65,535. */
    channel?: number
    /** For how long the server may hold a TAKE at most, in seconds, at most 20, which is the default; the first one is held for a second,
     * each after one that came too early for twice as long. 0: the answer is not taken until an ack
     * says that one is there, or by `take`. */
    wait?: number
  }
  /** Either promise is to be awaited. */
  export interface Asked {
    /** Resolves when the message is on the server's disk. */
    receipt: Promise<Receipt>
    /** Resolves when it was processed, or given up. Rejects with `Gone`, `TooLarge`, or as the receipt. */
    answer: Promise<Answer>
  }
  export interface Answer {
    /** DONE: processed. FAILED: the service has given it up. */
    status: 'DONE' | 'FAILED'
    /** What the service gave; often nothing. */
    body: Buffer
  }
  export interface Taken {
    /** PENDING: on the server's disk, and not answered yet. */
    status: 'DONE' | 'FAILED' | 'PENDING'
    body: Buffer
  }
  export interface Receipt {
    epoch: number
    seq: bigint
  }
  /** The server will never take the message. Others are not concerned. */
  export class Refused extends Error {
    readonly code: number
  }
  /** The message, or the body of its answer, fits in no datagram, or is longer than this system's UDP carries. */
  export class TooLarge extends Error {}
  /** No answer will come: it was had, has expired, was lost, or was never asked for. That says nothing of the effect. */
  export class Gone extends Error {
    readonly epoch: number
    readonly seq: bigint
  }
  /** Too many messages wait already, or 64 that asked have no answer. */
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
  /** Sends a message to which the service behind the server is to answer. */
  ask(payload: string | ArrayBufferView | ArrayBufferLike, options?: Client.AskOptions): Client.Asked
  /** What has become of a message that asked, in this run or in an earlier one; `wait`: for how long the server may hold the question, in
   * seconds. Rejects with `Gone`. */
  take(epoch: number, seq: bigint | number, options?: { wait?: number }): Promise<Client.Taken>
  /** What asked, is on the server's disk and has no answer: who stores it can take the answers in a later run. */
  readonly waiting: Array<{ epoch: number; seq: bigint }>
  /** Whether the server said in its latest ack that an answer waits: a hint. */
  readonly ready: boolean
  /** Ends the client at once. */
  close(): void
}

export = Client
