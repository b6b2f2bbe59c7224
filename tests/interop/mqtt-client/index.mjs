// Replaces a peer dependency of the reference that no registry has: the part that the reference uses, over npm `mqtt`.
// As in the original, connections use Clean Start 0 but their sessions expire at once, and the will has no delay.
import mqtt from 'mqtt'

export class CloudSignalClient {
  #mqtt = null
  #callbacks = new Map()

  async connectWithToken({ host, clientId, willTopic, willMessage, willQos, willRetain }) {
    const will = willTopic && { topic: willTopic, payload: willMessage, qos: willQos, retain: willRetain }
    this.#mqtt = await mqtt.connectAsync(host, { protocolVersion: 5, clean: false, clientId, will })
    this.#mqtt.on('error', (error) => console.error('mqtt:', error))
    this.#mqtt.on('message', (topic, payload, packet) => this.#callbacks.get(topic)?.(topic, payload, packet))
  }

  isConnected() {
    return this.#mqtt?.connected ?? false
  }

  async transmit(topic, message, options) {
    await this.#mqtt.publishAsync(topic, message, options)
  }

  async subscribe(filter, { qos, callback }) {
    this.#callbacks.set(topicOf(filter), callback)
    await this.#mqtt.subscribeAsync(filter, { qos })
  }

  async unsubscribe(filter) {
    this.#callbacks.delete(topicOf(filter))
    await this.#mqtt.unsubscribeAsync(filter)
  }

  async disconnect() {
    await this.#mqtt.endAsync()
  }
}

// The reference subscribes only to exact topics, and some of its subscriptions are shared.
function topicOf(filter) {
  return filter.replace(/^\$share\/[^/]+\//, '')
}
