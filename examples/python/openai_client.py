"""The official client against `dasan serve`: openai_client.py [URL]. LangChain and LlamaIndex reach it the
same way: ChatOpenAI(base_url=URL, ...) and OpenAILike(api_base=URL, ...)."""

import sys

import openai


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1"
    client = openai.OpenAI(base_url=url, api_key="none")
    model = client.models.list().data[0].id
    messages: list[openai.types.chat.ChatCompletionMessageParam] = [
        {"role": "user", "content": "여권은 어디서 만드나요?"}
    ]
    for chunk in client.chat.completions.create(model=model, messages=messages, temperature=0, stream=True):
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()


if __name__ == "__main__":
    main()
