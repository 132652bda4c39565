import Client from './index.js'

export const { Refused, TooLarge, Full, Closed, Gone, PAYLOAD_MAX } = Client
export { Client, Client as default }
