import base64
import json
import urllib.request

with open("picture.jpg", "rb") as picture:
    queries = [base64.b64encode(picture.read()).decode()]
request = urllib.request.Request(
    "{{classifier}}/classify",
    data=json.dumps({"queries": queries}).encode(),
    headers={"Content-Type": "application/json"},
)
with urllib.request.urlopen(request) as answer:
    for result in json.load(answer)["results"]:
        print(result["label"], result["scores"][0]["probability"])
