export class Check {
  constructor(tools) {
    this.tools = tools;
  }

  hide() {}

  async show() {}
}
