import Client = require('./index.js')

export import Refused = Client.Refused
export import TooLarge = Client.TooLarge
export import Full = Client.Full
export import Closed = Client.Closed
export import Gone = Client.Gone
export const PAYLOAD_MAX: number
export { Client, Client as default }
