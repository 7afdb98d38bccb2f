curl "{{classifier}}/classify" -F query=@picture.jpg
