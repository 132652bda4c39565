import Client from './index.js'

export const { Refused, TooLarge, Full, Closed, PAYLOAD_MAX } = Client
export { Client, Client as default }
