// The tabs of the workbench that are loaded when somebody opens one. `tools` is what they share with the page:
// {ask, send, classifier, page, note, act, confirmLoss}.

import { Batches } from "./batches_view.js";
import { Check } from "./check_view.js";
import { UseIt } from "./use_view.js";

export const viewsOf = (tools) => ({
  check: new Check(tools),
  batches: new Batches(tools),
  use: new UseIt(tools),
});
